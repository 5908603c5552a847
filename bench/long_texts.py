"""How to read long texts: windows, strides and aggregations, on documents of SST-2's sentences.

    python -m bench.long_texts --train sst2/train.tsv
    python -m bench.long_texts sst2/dev.tsv --windows 512

The first is of sentences that were held back from the model's training: what to choose by.

No labelled long texts are at hand, so each document is 60 sentences drawn from the file (about
1,400 tokens), of which a share has the document's label and the rest the other, in random order:
a review that says both, as long ones do. The figure is how often the document gets its label. The
stride is a window's tokens less those that it shares with the next one: its overlap, here a share
of the window. A larger overlap has more windows to compute, which the table says.
"""

from __future__ import annotations

import argparse
import itertools
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
from project.sentiment.prediction import EncodedText
from project.sentiment.runs import held_back_of

SENTENCES = 60
DOCUMENTS = 100
SHARES = (0.6, 0.7, 0.9)
WINDOWS = (64, 128, 256, 512)
OVERLAPS = (0.0, 1 / 16, 1 / 4, 1 / 2)
BATCH = 8  # windows

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


def make_documents(
    examples: Sequence[Example], count: int = DOCUMENTS, seed: int = 0
) -> list[Document]:
    """``count`` documents of every share, half of each label."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    by_label = [[each.text for each in examples if each.label == label] for label in (0, 1)]
    documents = []
    for share in SHARES:
        for number in range(count):
            label, own = number % 2, round(SENTENCES * share)
            sentences = chance.choices(by_label[label], k=own)
            sentences += chance.choices(by_label[1 - label], k=SENTENCES - own)
            chance.shuffle(sentences)
            documents.append(Document(" ".join(sentences), label, share))
    return documents


def read(
    classifier: SentimentClassifier, documents: Sequence[Document], window: int, overlap: int
) -> tuple[list[EncodedText], list[Rows]]:
    """The windows of every document, and the probabilities of every window."""
    policy = LongTextPolicy(overlap=overlap, max_windows=sys.maxsize)
    encoder = TextEncoder(classifier.folder, window, policy)
    encoded = encoder.encode([document.text for document in documents])
    progress = tqdm(encoded, desc=f"window {window}, overlap {overlap}", file=sys.stderr)
    return encoded, [
        [
            row
            for start in range(0, len(text.windows), BATCH)
            for row in classifier.infer(text.windows[start : start + BATCH])
        ]
        for text in progress
    ]


def right_shares(
    documents: Sequence[Document],
    encoded: Sequence[EncodedText],
    rows: Sequence[Rows],
    aggregate: Aggregation,
) -> list[float]:
    """How many of the documents of every share get their label, 0 to 1."""
    right: dict[float, list[bool]] = {share: [] for share in SHARES}
    for document, text, scores in zip(documents, encoded, rows, strict=True):
        guess = aggregate(scores, [len(each) for each in text.windows]) > 0.5
        right[document.share].append(guess == bool(document.label))
    return [sum(each) / len(each) for each in right.values()]


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table: window, overlap, windows a document, aggregation, right documents by share."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sentences = parser.add_mutually_exclusive_group(required=True)
    sentences.add_argument("file", type=Path, nargs="?", help="labelled sentences")
    sentences.add_argument("--train", type=Path, help="SST-2's train.tsv: what is held back of it")
    parser.add_argument("--model", type=Path, default=WEIGHTS)
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="of every share")
    parser.add_argument("--windows", type=int, nargs="+", default=WINDOWS, help="in tokens")
    parser.add_argument("--overlaps", type=float, nargs="+", default=OVERLAPS, help="of the window")
    options = parser.parse_args(argv)
    examples = (
        held_back_of(options.model, options.train, None)
        if options.train
        else read_examples(options.file)
    )
    documents = make_documents(examples, options.documents)
    classifier = SentimentClassifier(options.model)
    columns = ("window", "overlap", "windows", "aggregation", *(f"{share:.0%}" for share in SHARES))
    print("|", " | ".join(columns), "|")
    print("|", " | ".join("---" for _ in columns), "|")
    for window, share in itertools.product(options.windows, options.overlaps):
        overlap = round(window * share)
        encoded, rows = read(classifier, documents, window, overlap)
        count = sum(map(len, rows)) / len(rows)
        for name, aggregate in AGGREGATIONS.items():
            right = right_shares(documents, encoded, rows, aggregate)
            shares = " | ".join(f"{each:.0%}" for each in right)
            print(f"| {window} | {overlap} | {count:.1f} | {name} | {shares} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
