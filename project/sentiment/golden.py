"""Golden answers: what transformers said when the model was exported, and whether that still holds.

A wrong build of a runtime, a broken download or an unsuitable quantisation answers quickly and
wrongly; a service that compares a few answers before it is ready does not go into traffic with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from math import inf
from pathlib import Path

from project.sentiment.files import ModelError
from project.sentiment.options import BackendName, OnLongText
from project.sentiment.prediction import Classifier

GOLDEN_FILE = "golden.json"
GOLDEN_TEXTS = (
    "i like you",
    "i hate you",
    "a wonderful, moving film",
    "it isn't worth a minute of your time",
    "the plot is thin, but the two leads make up for it and the ending is worth the wait. " * 3,
)
TOLERANCE = 1e-3
"""In probability. In single precision, runtimes and batch sizes differ by about 1e-6."""


class ParityError(RuntimeError):
    """The model answers other than it did when it was exported."""


@dataclass(frozen=True, slots=True)
class Golden:
    """A text and the probability of every label."""

    text: str
    scores: dict[str, float]


def write_golden(folder: Path, golden: Sequence[Golden]) -> None:
    """Store ``golden`` beside the model."""
    text = json.dumps([asdict(each) for each in golden], indent=1, ensure_ascii=False)
    (folder / GOLDEN_FILE).write_text(text + "\n", encoding="utf-8")


def read_golden(folder: Path) -> list[Golden]:
    """The golden answers beside the model; none if it was not exported by this project.

    Raises:
        ModelError: the file cannot be read.
    """
    path = folder / GOLDEN_FILE
    if not path.exists():
        return []
    try:
        return [Golden(**each) for each in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}") from error


def check_golden(
    classifier: Classifier, golden: Sequence[Golden], tolerance: float = TOLERANCE
) -> float:
    """Compare the answers of ``classifier``, all texts in one padded batch, cut to its window.

    The last text once more, as a batch that is alone: another session computes that.

    Returns:
        The largest difference in probability.

    Raises:
        ParityError: one differs by more than ``tolerance``, and the message names the text; or a
            graph, which anything may have written, comes with nothing to compare it with.
    """
    if not golden:
        if classifier.backend != BackendName.ONNX:
            return 0.0
        raise ParityError(
            f"the model has a graph, but no {GOLDEN_FILE} to check it with: export the model with"
            " python -m project.sentiment.export, or set BACKEND=transformers"
        )
    encoded = classifier.encode([each.text for each in golden], OnLongText.TRUNCATE)
    windows = [each.windows[0] for each in encoded]
    rows = [*classifier.infer(windows), *classifier.infer(windows[-1:], alone=True)]
    return max(
        _compare(each, classifier.combine(text, [row]).scores, tolerance)
        for each, text, row in zip(
            [*golden, golden[-1]], [*encoded, encoded[-1]], rows, strict=True
        )
    )


def _compare(golden: Golden, scores: Mapping[str, float], tolerance: float) -> float:
    if scores.keys() != golden.scores.keys():
        worst = inf
    else:
        worst = max(abs(scores[label] - score) for label, score in golden.scores.items())
    if not worst <= tolerance:  # also for NaN
        raise ParityError(
            f"the model answers {dict(scores)} to {golden.text[:40]!r}, {worst:.2g} off"
            f" the {golden.scores} it was exported with; {tolerance:g} is tolerated"
        )
    return worst
