"""Golden answers: what transformers said when the model was exported, and whether that still holds.

A wrong build of a runtime, a broken download or an unsuitable quantisation answers quickly and
wrongly; a service that compares a few answers before it is ready does not go into traffic with it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

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
    """The golden answers beside the model; none if it was not exported by this project."""
    path = folder / GOLDEN_FILE
    if not path.exists():
        return []
    return [Golden(**each) for each in json.loads(path.read_text(encoding="utf-8"))]


def check_golden(
    classifier: Classifier, golden: Sequence[Golden], tolerance: float = TOLERANCE
) -> float:
    """Compare the answers of ``classifier``, all texts in one padded batch.

    Returns:
        The largest difference in probability.

    Raises:
        ParityError: one differs by more than ``tolerance``; the message names the text.
    """
    if not golden:
        return 0.0
    largest = 0.0
    encoded = classifier.encode([each.text for each in golden])
    rows = classifier.infer([each.windows[0] for each in encoded])
    for each, text, row in zip(golden, encoded, rows, strict=True):
        scores = classifier.combine(text, [row]).scores
        worst = max(abs(scores.get(label, -1.0) - score) for label, score in each.scores.items())
        largest = max(largest, worst)
        if not worst <= tolerance:  # also for NaN
            raise ParityError(
                f"the model answers {dict(scores)} to {each.text[:40]!r}, {worst:.2g} off"
                f" the {each.scores} it was exported with; {tolerance:g} is tolerated"
            )
    return largest
