"""Reading labelled files."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.sentiment.data import DataError, Example, read_examples


def test_reads_rows(tmp_path: Path) -> None:
    """The header is passed over, a text may hold anything but a line feed."""
    path = tmp_path / "a.tsv"
    path.write_text("label\tsentence\n1\ta\tb\u2028 \r\n0\tc\n", encoding="utf-8")

    assert read_examples(path) == [Example("a\tb\u2028 ", 1), Example("c", 0)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label\tsentence\n", "no rows"),
        ("label\tsentence\n2\ta\n", "a.tsv:2: expected 0 or 1"),
        ("label\tsentence\n1\ta\nno tab\n", "a.tsv:3: expected 0 or 1"),
    ],
)
def test_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    """File and line of what cannot be read."""
    path = tmp_path / "a.tsv"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        read_examples(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """No file is an error of the same kind."""
    with pytest.raises(DataError, match="nothing"):
        read_examples(tmp_path / "nothing.tsv")
