r"""Sentences of reviews that have no labels of their own, for a teacher to label.

    python -m project.sentiment.sentences reviews.csv --column text --where source=imdb \
        --without sst2/train.tsv sst2/dev.tsv --count 90000 --output sentences.txt
    python -m project.sentiment.distill label --texts sentences.txt ...

They are written as SST-2 writes its own: in lower case, in the tokens of the Penn Treebank. A
sentence that quotes SST-2 is left out, so that nothing is trained on what is held back or measured
with. Splitting: Punkt (Kiss & Strunk 2006), trained on the reviews themselves.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer
from nltk.tokenize.treebank import TreebankWordTokenizer

from project.sentiment.data import DataError, read_examples

MIN_TOKENS, MAX_TOKENS = 4, 60
JOINED = 0.2  # of the texts are two sentences that follow each other
QUOTED = 8  # words in a row that make a quotation
PARAGRAPH = re.compile(r"(?:<br\s*/?>\s*)+|\n\s*\n")
LARGEST_REVIEW = 1_000_000  # characters


def read_reviews(path: Path, column: str, where: dict[str, str]) -> list[str]:
    """The texts of a CSV file with a header line, of the rows whose columns are as ``where`` says.

    Raises:
        DataError: the file cannot be read, lacks a column, or has no such row.
    """
    csv.field_size_limit(LARGEST_REVIEW)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    columns = set(rows[0]) if rows else set()
    if missing := {column, *where} - columns:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    texts = [
        row[column] for row in rows if all(row[name] == value for name, value in where.items())
    ]
    if not texts:
        wanted = " and ".join(f"{name} is {value}" for name, value in where.items())
        raise DataError(f"{path}: no row in which {wanted}")
    return texts


def read_texts(path: Path) -> list[str]:
    """A text a line, as :func:`main` writes them.

    Raises:
        DataError: the file cannot be read, or is empty.
    """
    try:
        texts = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    if not (found := [each for each in texts if each.strip()]):
        raise DataError(f"{path}: no texts")
    return found


def sentences_of(reviews: Sequence[str], seed: int) -> Iterator[str]:
    """Sentences in SST-2's spelling, a share of them with the one that follows; in their order."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    trainer = PunktTrainer()
    trainer.INCLUDE_ALL_COLLOCS = True
    paragraphs = [each.strip() for review in reviews for each in PARAGRAPH.split(review)]
    for paragraph in paragraphs:
        trainer.train(paragraph, finalize=False)
    splitter = PunktSentenceTokenizer(trainer.get_params())
    for paragraph in paragraphs:
        sentences = [spell_as_treebank(each) for each in splitter.tokenize(paragraph)]
        while sentences:
            joined = 2 if chance.random() < JOINED else 1
            yield " ".join(sentences[:joined])
            del sentences[:joined]


def spell_as_treebank(sentence: str) -> str:
    """SST-2's tokens: ``It isn't good.`` becomes ``it is n't good .``."""
    return " ".join(TreebankWordTokenizer().tokenize(sentence)).lower()


def without_quotations(texts: Iterable[str], quoted: Iterable[str]) -> Iterator[str]:
    """The texts that have no ``QUOTED`` words in a row from ``quoted``, and are none of those."""
    whole: set[tuple[str, ...]] = set()
    runs: set[tuple[str, ...]] = set()
    for text in quoted:
        words = _words(text)
        whole.add(words)
        runs.update(_runs(words))
    for text in texts:
        words = _words(text)
        if words not in whole and runs.isdisjoint(_runs(words)):
            yield text


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", text.lower()))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[start : start + QUOTED] for start in range(len(words) - QUOTED + 1))


def sample(reviews: Sequence[str], quoted: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """``count`` different texts of the reviews, or all if there are fewer, in random order."""
    fitting = (
        each
        for each in sentences_of(reviews, seed)
        if MIN_TOKENS <= len(each.split()) <= MAX_TOKENS
    )
    texts = list(dict.fromkeys(without_quotations(fitting, quoted)))
    chance = random.Random(seed)  # noqa: S311  (no secret)
    return chance.sample(texts, min(count, len(texts)))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.sentences",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reviews", type=Path, help="CSV file with a header line")
    parser.add_argument("--column", default="text")
    parser.add_argument(
        "--where", type=_condition, action="append", default=[], metavar="COLUMN=VALUE"
    )
    parser.add_argument("--without", type=Path, nargs="+", default=[], help="labelled files")
    parser.add_argument("--count", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        reviews = read_reviews(options.reviews, options.column, dict(options.where))
        quoted = [each.text for path in options.without for each in read_examples(path)]
    except DataError as error:
        print(f"sentences: {error}", file=sys.stderr)
        return 2
    texts = sample(reviews, quoted, options.count, options.seed)
    options.output.write_text("".join(f"{each}\n" for each in texts), encoding="utf-8")
    print(f"{len(texts)} of {len(reviews)} reviews")
    return 0


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    return column, value


if __name__ == "__main__":
    sys.exit(main())
