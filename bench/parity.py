"""Our engine against ``transformers.pipeline`` on every text of a file, alone and in batches.

    python -m bench.parity sst2/dev.tsv

Prints the largest difference in probability, and how many labels differ; fails if a label does, or
a probability by more than ``TOLERANCE``.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from transformers import pipeline

from project.sentiment.data import read_examples
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier

TOLERANCE = 1e-4


def main() -> None:
    """Run the command line."""
    logging.disable(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    texts = [example.text for example in read_examples(parser.parse_args().file)]
    classifier = SentimentClassifier()
    reference = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
    expected = [reference(text)[0] for text in texts]
    unsorted = [
        classifier.combine(encoded, [row])
        for start in range(0, len(texts), 32)
        for encoded in [classifier.encode(texts[start : start + 32])]
        for encoded, row in zip(
            encoded, classifier.infer([each.windows[0] for each in encoded]), strict=True
        )
    ]
    ways = {
        "alone": [classifier.predict([text])[0] for text in texts],
        "sorted batches": classifier.predict(texts),
        "unsorted batches of 32": unsorted,
    }
    for way, predictions in ways.items():
        pairs = list(zip(predictions, expected, strict=True))
        worst = max(abs(ours.scores[theirs["label"]] - theirs["score"]) for ours, theirs in pairs)
        labels = sum(ours.label != theirs["label"] for ours, theirs in pairs)
        print(f"{way}: {worst:.2e} at most, {labels} labels differ")
        if worst > TOLERANCE or labels:
            sys.exit(f"more than {TOLERANCE:g}, or another label")


if __name__ == "__main__":
    main()
