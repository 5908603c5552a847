"""What a model says, and what it must be able to do; light enough to import anywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says of one text.

    Attributes:
        label: the most probable label.
        score: its probability, 0 to 1.
        scores: the probability of every label; they add up to 1.
    """

    label: str
    score: float
    scores: Mapping[str, float]


class Classifier(Protocol):
    """What serving needs of a model: a loaded, thread-safe classifier."""

    @property
    def name(self) -> str:
        """What to call the model in an answer."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify ``texts``: one prediction per text, in their order."""
