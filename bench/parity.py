"""Our engine against ``transformers.pipeline`` on every text of a file, alone and in batches.

    python -m bench.parity sst2/dev.tsv

Prints the largest difference in probability, and how many labels differ; fails if a label does, or
a probability by more than ``DIFFERENCE``. With ``--output`` it writes ``parity.json`` there.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import pipeline

from bench.targets import DIFFERENCE
from project.sentiment.data import read_examples
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier
from project.sentiment.prediction import Prediction


def unsorted(
    classifier: SentimentClassifier, texts: Sequence[str], *, alone: bool
) -> list[Prediction]:
    """In batches of 32 as they come, with all the padding that this needs."""
    return [
        classifier.combine(encoded, [row])
        for start in range(0, len(texts), 32)
        for several in [classifier.encode(texts[start : start + 32])]
        for encoded, row in zip(
            several,
            classifier.infer([each.windows[0] for each in several], alone=alone),
            strict=True,
        )
    ]


def compare(predictions: Sequence[Prediction], expected: Sequence[Any]) -> dict[str, float]:
    """The largest difference in probability, and how many labels differ."""
    pairs = list(zip(predictions, expected, strict=True))
    return {
        "largest_difference": max(
            abs(ours.scores[theirs["label"]] - theirs["score"]) for ours, theirs in pairs
        ),
        "labels_differ": sum(ours.label != theirs["label"] for ours, theirs in pairs),
    }


def main() -> None:
    """Run the command line."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, help="folder")
    options = parser.parse_args()
    texts = [example.text for example in read_examples(options.file)]
    classifier = SentimentClassifier()
    reference = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
    expected = [reference(text)[0] for text in texts]
    ways = {
        "alone": [classifier.predict([text])[0] for text in texts],
        "sorted batches": classifier.predict(texts),
        "unsorted batches of 32, a core each": unsorted(classifier, texts, alone=False),
        "unsorted batches of 32, all cores": unsorted(classifier, texts, alone=True),
    }
    raw: dict[str, Any] = {
        "texts": len(texts),
        "ways": {way: compare(predictions, expected) for way, predictions in ways.items()},
    }
    for way, found in raw["ways"].items():
        print(f"{way}: {found['largest_difference']:.2e} at most,"
              f" {found['labels_differ']} labels differ")  # fmt: skip
    if options.output:
        path = options.output / "parity.json"
        path.write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    if any(
        each["largest_difference"] > DIFFERENCE or each["labels_differ"]
        for each in raw["ways"].values()
    ):
        sys.exit(f"more than {DIFFERENCE:g}, or another label")


if __name__ == "__main__":
    main()
