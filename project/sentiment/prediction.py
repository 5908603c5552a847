"""What a model says, and what it must be able to do; light enough to import anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from project.sentiment.options import OnLongText

TokenIds = Sequence[int]
"""One window of a text, special tokens included, not padded."""


@dataclass(frozen=True, slots=True)
class EncodedText:
    """A text as the model reads it.

    Attributes:
        windows: token ids, each at most the model's window long; neighbours overlap.
        tokens: of the whole text, special tokens not counted.
        truncated: whether a part of the text is in no window.
        over: the most tokens that are taken, if the text has more and is refused: it has no
            windows then.
    """

    windows: tuple[TokenIds, ...]
    tokens: int
    truncated: bool = False
    over: int | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one text.

    Attributes:
        label: the most probable label.
        score: its probability, 0 to 1.
        scores: the probability of every label; they add up to 1.
        tokens, windows, truncated: how much of the text was read; see :class:`EncodedText`.
    """

    label: str
    score: float
    scores: Mapping[str, float]
    tokens: int = 0
    windows: int = 1
    truncated: bool = False


class TextTooLong(ValueError):
    """A text is longer than may be classified.

    Attributes:
        index: of the text in its list.
        limit: in tokens.
    """

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(f"has {tokens} tokens, at most {limit} are taken")
        self.index = index
        self.limit = limit


class Classifier(Protocol):
    """What serving needs of a loaded model; every method may be called from any thread.

    A text goes through :meth:`encode`, its windows through :meth:`infer` in whatever batches are
    cheap, and their rows through :meth:`combine`.
    """

    @property
    def name(self) -> str:
        """What to call the model in an answer."""

    @property
    def revision(self) -> str:
        """Which weights these are: the first digits of their SHA-256."""

    @property
    def backend(self) -> str:
        """What computes, as in :class:`~project.sentiment.options.BackendName`."""

    @property
    def workers(self) -> int:
        """How many threads should call :meth:`infer` at once."""

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """Tokenise ``texts``; one that is over the limit and may not be cut has no windows.

        Args:
            on_long_text: what to do with such texts; None: what the model was loaded with.
        """

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """The probabilities of every label for every window: [windows, labels].

        Args:
            alone: no other batch is being computed: this one may use every core.
        """

    def combine(self, text: EncodedText, rows: Sequence[Sequence[float]]) -> Prediction:
        """The prediction for a text from the rows of its windows."""
