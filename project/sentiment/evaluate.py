r"""Measures a model on labelled texts: accuracy, F1, confusion matrix, texts per second.

    python -m project.sentiment.evaluate sst2/dev.tsv
    python -m project.sentiment.evaluate student --train sst2/train.tsv

The second measures on the sentences that were held back from the model's training: what to choose
by, where ``dev.tsv`` is what the choice is judged by.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from project.sentiment.data import LABELS, DataError, Example, read_examples
from project.sentiment.files import WEIGHTS, ModelError
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import BackendName
from project.sentiment.prediction import Prediction
from project.sentiment.runs import held_back_of

Z_95 = 1.959964  # two-sided 95 % quantile of the normal distribution


class Predictor(Protocol):
    """What can be evaluated."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify ``texts``: one prediction per text, in their order."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a model does on labelled texts.

    Attributes:
        texts: how many were classified.
        accuracy: share of right labels, 0 to 1.
        accuracy_low, accuracy_high: its 95 % confidence interval (Wilson 1927).
        f1: of the class POSITIVE.
        confusion: true label -> predicted label -> count.
        texts_per_second: of ``predict`` on all of them, tokenising included.
    """

    texts: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    f1: float
    confusion: dict[str, dict[str, int]]
    texts_per_second: float


def evaluate(classifier: Predictor, examples: Sequence[Example]) -> Evaluation:
    """Classify every text of ``examples``.

    Raises:
        DataError: the model has other labels than they have.
    """
    start = time.perf_counter()
    predictions = classifier.predict([example.text for example in examples])
    seconds = time.perf_counter() - start
    pairs = Counter(
        (LABELS[example.label], prediction.label)
        for example, prediction in zip(examples, predictions, strict=True)
    )
    unknown = {predicted for _, predicted in pairs} - set(LABELS)
    if unknown:
        raise DataError(f"the model answers {sorted(unknown)}, the texts have {list(LABELS)}")
    return _summarise(pairs, len(examples) / seconds)


def _summarise(pairs: Counter[tuple[str, str]], texts_per_second: float) -> Evaluation:
    total = pairs.total()
    hits = sum(pairs[label, label] for label in LABELS)
    low, high = wilson_interval(hits, total)
    negative, positive = LABELS
    wrong = pairs[negative, positive] + pairs[positive, negative]
    true_positive = pairs[positive, positive]
    return Evaluation(
        texts=total,
        accuracy=hits / total,
        accuracy_low=low,
        accuracy_high=high,
        f1=2 * true_positive / max(1, 2 * true_positive + wrong),
        confusion={true: {guess: pairs[true, guess] for guess in LABELS} for true in LABELS},
        texts_per_second=texts_per_second,
    )


def wilson_interval(hits: int, total: int) -> tuple[float, float]:
    """The 95 % confidence interval of a share ``hits / total`` (Wilson 1927)."""
    share, spread = hits / total, Z_95**2 / total
    centre = (share + spread / 2) / (1 + spread)
    half = Z_95 / (1 + spread) * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return centre - half, centre + half


def main(argv: Sequence[str] | None = None) -> int:
    """Print the evaluation as one JSON object; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subject",
        metavar="FILE|MODEL",
        help="labelled file: header, then label<TAB>text; with --train: the model's folder",
    )
    parser.add_argument("--train", type=Path, help="SST-2's train.tsv: what is held back of it")
    parser.add_argument(
        "--held-back", type=int, help="whole sentences; default: what the model's record says"
    )
    parser.add_argument("--model", default=str(WEIGHTS), help="local folder or Hub id")
    parser.add_argument("--revision", help="of the Hub id")
    parser.add_argument("--backend", type=BackendName, default=BackendName.AUTO, help="%(default)s")
    options = parser.parse_args(argv)
    try:
        model = options.subject if options.train else options.model
        classifier = SentimentClassifier(model, options.revision, backend=options.backend)
        if options.train:
            examples = held_back_of(Path(model), options.train, options.held_back)
        else:
            examples = read_examples(Path(options.subject))
        evaluation = evaluate(classifier, examples)
    except (ModelError, ValueError) as error:
        print(f"evaluate: {error}", file=sys.stderr)
        return 2
    print(json.dumps(asdict(evaluation), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
