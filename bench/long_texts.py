"""How to read long texts: window sizes and aggregations, on documents made of SST-2's sentences.

    python -m bench.long_texts sst2/dev.tsv

No labelled long texts are at hand, so each document is 60 sentences drawn from the file (about
1,400 tokens), of which a share has the document's label and the rest the other, in random order:
a review that says both, as long ones do. The figure is how often the document gets its label.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from project.sentiment.data import Example, read_examples
from project.sentiment.encoding import TextEncoder
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import LongTextPolicy

SENTENCES = 60
DOCUMENTS = 100
SHARES = (0.6, 0.7, 0.9)
WINDOWS = (64, 128, 256, 512)

Rows = Sequence[Sequence[float]]
Aggregation = Callable[[Rows, Sequence[int]], float]


@dataclass(frozen=True, slots=True)
class Document:
    """A long text, its label, and the share of its sentences that have it."""

    text: str
    label: int
    share: float


def mean(rows: Rows, lengths: Sequence[int]) -> float:
    """The mean probability of POSITIVE, by the windows' lengths."""
    return sum(row[1] * length for row, length in zip(rows, lengths, strict=True)) / sum(lengths)


def mean_logit(rows: Rows, lengths: Sequence[int]) -> float:
    """The mean log-odds, by the windows' lengths."""
    logits = [math.log((row[1] + 1e-9) / (row[0] + 1e-9)) for row in rows]
    total = sum(value * length for value, length in zip(logits, lengths, strict=True))
    return 1 / (1 + math.exp(-total / sum(lengths)))


def most_certain(rows: Rows, lengths: Sequence[int]) -> float:
    """The window that is surest, alone."""
    return max((row[1] for row in rows), key=lambda value: abs(value - 0.5))


def first(rows: Rows, lengths: Sequence[int]) -> float:
    """The first window: truncation."""
    return rows[0][1]


AGGREGATIONS: dict[str, Aggregation] = {
    "truncate": first,
    "most certain": most_certain,
    "mean logit": mean_logit,
    "mean": mean,
}


def make_documents(examples: Sequence[Example], seed: int = 0) -> list[Document]:
    """Documents of every share, half of each label."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    by_label = [[each.text for each in examples if each.label == label] for label in (0, 1)]
    documents = []
    for share in SHARES:
        for number in range(DOCUMENTS):
            label, own = number % 2, round(SENTENCES * share)
            sentences = chance.choices(by_label[label], k=own)
            sentences += chance.choices(by_label[1 - label], k=SENTENCES - own)
            chance.shuffle(sentences)
            documents.append(Document(" ".join(sentences), label, share))
    return documents


def main() -> int:
    """Print a table: window, aggregation, right documents by share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    documents = make_documents(read_examples(parser.parse_args().file))
    classifier = SentimentClassifier()
    print("| window | aggregation |", " | ".join(f"{share:.0%}" for share in SHARES), "|")
    print("| --- | --- |", " | ".join("---" for _ in SHARES), "|")
    for window in WINDOWS:
        encoder = TextEncoder(WEIGHTS, window, LongTextPolicy())
        encoded = encoder.encode([document.text for document in documents])
        rows = [
            classifier.infer(text.windows[:8]) + classifier.infer(text.windows[8:])
            if len(text.windows) > 8
            else classifier.infer(text.windows)
            for text in tqdm(encoded, desc=f"window {window}", file=sys.stderr)
        ]
        for name, aggregate in AGGREGATIONS.items():
            right = dict.fromkeys(SHARES, 0)
            for document, text, scores in zip(documents, encoded, rows, strict=True):
                guess = aggregate(scores, [len(each) for each in text.windows]) > 0.5
                right[document.share] += guess == bool(document.label)
            shares = " | ".join(f"{right[share] / DOCUMENTS:.0%}" for share in SHARES)
            print(f"| {window} | {name} | {shares} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
