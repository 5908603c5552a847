r"""Sentences of reviews that have no labels of their own, for a teacher to label.

    python -m project.sentiment.sentences reviews.csv --column text --where source=imdb \
        --without sst2/train.tsv sst2/dev.tsv --count 90000 --output sentences.txt
    python -m project.sentiment.distill label --texts sentences.txt ...

They are written as SST-2 writes its own: in lower case, in the tokens of the Penn Treebank. What
quotes SST-2, eight words in a row or the whole text, is left out: it may be what is held back or
measured with. Splitting: Punkt (Kiss & Strunk 2006), trained on the reviews themselves.
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
JOINED = 0.2  # of the texts have the sentence that follows, too, where the paragraph has one
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
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), set(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: {error}") from error
    if missing := {column, *where} - columns:
        raise DataError(f"{path}: no column {', '.join(sorted(missing))}")
    texts = [
        row[column] for row in rows if all(row[name] == value for name, value in where.items())
    ]
    if not texts:
        wanted = " and ".join(f"{name} is {value}" for name, value in where.items())
        raise DataError(f"{path}: no row{' in which ' if where else ''}{wanted}")
    return texts


def sentences_of(reviews: Sequence[str], seed: int) -> Iterator[str]:
    """Sentences in SST-2's spelling, a share of them with the one that follows; in their order."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    trainer = PunktTrainer()
    trainer.INCLUDE_ALL_COLLOCS = True  # as nltk's own models were trained
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
    """Without punctuation, and without the brackets of SST-2's dev file."""
    return tuple(re.findall(r"[a-z0-9]+", re.sub(r"-[lr]rb-", " ", text.lower())))


def _runs(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    return (words[start : start + QUOTED] for start in range(len(words) - QUOTED + 1))


def sample(reviews: Sequence[str], quoted: Iterable[str], count: int, seed: int = 0) -> list[str]:
    """``count`` different texts of the reviews, or all if there are fewer, in random order.

    Raises:
        DataError: there are none.
    """
    fitting = (
        each
        for each in sentences_of(reviews, seed)
        if MIN_TOKENS <= len(each.split()) <= MAX_TOKENS
    )
    texts = list(dict.fromkeys(without_quotations(fitting, quoted)))
    if not texts:
        raise DataError(f"no text of {MIN_TOKENS} to {MAX_TOKENS} tokens that quotes nothing")
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
    parser.add_argument("--column", default="text", help="that has the texts (%(default)s)")
    parser.add_argument(
        "--where", type=_condition, action="append", default=[], metavar="COLUMN=VALUE",
        help="take only rows whose column has this value",
    )  # fmt: skip
    parser.add_argument(
        "--without", type=Path, nargs="+", required=True, metavar="FILE",
        help="labelled files, of which nothing may be quoted: SST-2's train.tsv and dev.tsv",
    )  # fmt: skip
    parser.add_argument("--count", type=_count, required=True, help="how many texts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args(argv)
    try:
        reviews = read_reviews(options.reviews, options.column, dict(options.where))
        quoted = [each.text for path in options.without for each in read_examples(path)]
        texts = sample(reviews, quoted, options.count, options.seed)
        options.output.write_text("".join(f"{each}\n" for each in texts), encoding="utf-8")
    except (DataError, OSError) as error:
        print(f"sentences: {error}", file=sys.stderr)
        return 2
    print(f"{len(texts)} texts of {len(reviews)} reviews")
    return 0


def _condition(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    return column, value


def _count(text: str) -> int:
    if (count := int(text)) < 1:
        raise ValueError(text)
    return count


if __name__ == "__main__":
    sys.exit(main())
