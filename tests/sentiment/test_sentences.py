"""Sentences of reviews, for a teacher to label."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.sentiment import sentences as module
from project.sentiment.data import DataError, read_texts
from project.sentiment.sentences import (
    read_reviews,
    sample,
    sentences_of,
    spell_as_treebank,
    without_quotations,
)

REVIEWS = """text,label,source
"A quiet film. It isn't ""great"", but I liked it!<br /><br />Dr. Smith liked it as well.",1,imdb
"See it again, and then see it once more.",1,imdb
"a text of another source .",0,tomatoes
"""


@pytest.fixture
def sst2(tmp_path: Path) -> Path:
    """A labelled file that one of the reviews quotes."""
    path = tmp_path / "sst2.tsv"
    path.write_text("label\ttext\n1\tsee it again , and then see it once more .\n", "utf-8")
    return path


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """Two reviews that are asked for, and one that is not."""
    path = tmp_path / "reviews.csv"
    path.write_text(REVIEWS, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("natural", "treebank"),
    [
        ("It isn't worth it, is it?", "it is n't worth it , is it ?"),
        ('They\'re "great".', "they 're `` great '' ."),
        ("You cannot but like it.", "you can not but like it ."),
        ("(90 minutes) of it's $10.", "( 90 minutes ) of it 's $ 10 ."),
    ],
)
def test_treebank_spelling(natural: str, treebank: str) -> None:
    """As SST-2's training file has it: what the augmentation spells naturally again."""
    assert spell_as_treebank(natural) == treebank


def test_sentences(monkeypatch: pytest.MonkeyPatch, reviews: Path) -> None:
    """One by one, or, where chance says so, with the one that follows in the paragraph."""
    texts = read_reviews(reviews, "text", {"source": "imdb"})
    single = [
        "a quiet film .",
        "it is n't `` great '' , but i liked it !",
        "dr. smith liked it as well .",
        "see it again , and then see it once more .",
    ]

    monkeypatch.setattr(module, "JOINED", 0.0)
    assert list(sentences_of(texts, seed=0)) == single
    monkeypatch.setattr(module, "JOINED", 1.0)
    assert list(sentences_of(texts, seed=0)) == [f"{single[0]} {single[1]}", *single[2:]]


def test_quotations_are_left_out() -> None:
    """Eight words in a row, whatever the punctuation; and a short sentence that is the same."""
    quoted = ["one two three -lrb- four -rrb- five six seven eight nine .", "a gem ."]
    texts = [
        "he said: One, two, three (four) five six seven eight!",
        "one two three four five six seven",
        "A gem!",
        "a gem , then .",
    ]

    assert list(without_quotations(texts, quoted)) == [texts[1], texts[3]]


def test_sample() -> None:
    """Different texts of four tokens or more, the same ones for a seed."""
    reviews = [f"This is film number {number}. Too short." for number in range(200)] * 2
    quoted = ["this is film number 7 ."]

    texts = sample(reviews, quoted, count=100, seed=1)

    assert len(set(texts)) == len(texts) == 100
    assert texts == sample(reviews, quoted, count=100, seed=1)
    assert texts != sample(reviews, quoted, count=100, seed=2)
    assert all(text.startswith("this is film number ") for text in texts)
    assert len(sample(reviews, quoted, count=10_000)) > 190
    assert quoted[0] not in sample(reviews, quoted, count=10_000)


def test_command(
    reviews: Path, sst2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that it writes is one that can be labelled; SST-2's own sentences are not in it."""
    output = tmp_path / "texts.txt"
    given = [str(reviews), "--where", "source=imdb", "--count", "9", "--output", str(output)]

    assert module.main([*given, "--without", str(sst2)]) == 0

    texts = " ".join(read_texts(output))
    assert "a quiet film ." in texts
    assert "another source" not in texts
    assert "once more" not in texts
    assert "3 texts of 2 reviews" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--column", "body"], "no column body"),
        (["--where", "site=imdb"], "no column site"),
        (["--where", "source=nobody"], "no row in which source is nobody"),
        (["--without", "nothing.tsv"], "nothing.tsv"),
        (["--output", "no/folder/texts.txt"], "no/folder/texts.txt"),
        (["--column", "label"], "no text of 4 to 60 tokens"),
    ],
)
def test_bad_input_is_named(
    reviews: Path,
    sst2: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: list[str],
    said: str,
) -> None:
    """Exit code 2 and what is wrong; nothing is written."""
    output = tmp_path / "texts.txt"
    usual = ["--without", str(sst2), "--count", "9", "--output", str(output)]

    assert module.main([str(reviews), *usual, *given]) == 2

    assert said in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.parametrize("given", [["--count", "0"], ["--where", "source"]])
def test_bad_arguments(sst2: Path, capsys: pytest.CaptureFixture[str], given: list[str]) -> None:
    """A count that is none and a condition without a value are refused by argument."""
    usual = ["reviews.csv", "--without", str(sst2), "--count", "9", "--output", "o"]

    with pytest.raises(SystemExit, match="2"):
        module.main([*usual, *given])

    assert f"argument {given[0]}" in capsys.readouterr().err


def test_rows_that_are_short(tmp_path: Path) -> None:
    """As spreadsheets write them: a mark before the header, and cells at the end left out."""
    path = tmp_path / "reviews.csv"
    path.write_text("text,note\nfine\nwell,so\n", encoding="utf-8-sig")

    assert read_reviews(path, "text", {}) == ["fine", "well"]
    assert read_reviews(path, "note", {"text": "fine"}) == [""]


def test_no_csv_and_no_texts(tmp_path: Path) -> None:
    """Files that are missing, empty or no text: the error names them."""
    binary, empty = tmp_path / "binary", tmp_path / "empty"
    binary.write_bytes(b"\xff\xfe\x00")
    empty.touch()
    for path in (binary, empty, tmp_path / "missing"):
        with pytest.raises(DataError, match=path.name):
            read_reviews(path, "text", {})
        with pytest.raises(DataError, match=path.name):
            read_texts(path)
