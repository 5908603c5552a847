"""The choices that a model can be loaded with; light enough to import anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum, unique

BATCH_TOKENS = 512  # padding included; larger batches are no faster on a CPU
BATCH_PADDING = 0.15  # the largest share of a batch that may be padding


@unique
class BackendName(StrEnum):
    """What computes."""

    #: ONNX Runtime where the model has a graph, else transformers.
    AUTO = "auto"
    ONNX = "onnx"
    TRANSFORMERS = "transformers"


@unique
class OnLongText(StrEnum):
    """What to do with a text that is longer than the model's window."""

    #: Classify all of it, in overlapping windows, up to a limit.
    WINDOW = "window"
    #: Classify its beginning.
    TRUNCATE = "truncate"
    #: Refuse it.
    REJECT = "reject"


@dataclass(frozen=True, slots=True)
class LongTextPolicy:
    """How long texts are read; ``overlap`` is in tokens."""

    on_long_text: OnLongText = OnLongText.WINDOW
    overlap: int = 32
    max_windows: int = 64
