"""Reading labelled files: a header line, then ``label<TAB>text`` a row, as GLUE ships SST-2."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

LABELS = ("NEGATIVE", "POSITIVE")
"""Label names by class index: 0 and 1 of SST-2 (Socher et al. 2013; Wang et al. 2018)."""


class DataError(ValueError):
    """A labelled file could not be read."""


@dataclass(frozen=True, slots=True)
class Example:
    """One labelled text; ``label`` is an index into :data:`LABELS`."""

    text: str
    label: int


def read_examples(path: Path) -> list[Example]:
    """Read a labelled TSV file.

    Raises:
        DataError: the file is missing, empty, or a row is not ``label<TAB>text``; the message names
            the file, the line and what was found.
    """
    lines = _read_lines(path)
    rows = [(number, line.rstrip("\r")) for number, line in enumerate(lines[1:], start=2)]
    examples = [_parse_row(path, number, line) for number, line in rows if line]
    if not examples:
        raise DataError(f"{path}: no rows below the header line")
    return examples


def read_texts(path: Path) -> list[str]:
    """Read a file of texts without labels: one a line.

    Raises:
        DataError: the file cannot be read, or has no texts.
    """
    if not (texts := [line for line in _read_lines(path) if line.strip()]):
        raise DataError(f"{path}: no texts")
    return texts


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error


def _parse_row(path: Path, number: int, line: str) -> Example:
    label, tab, text = line.partition("\t")
    if not tab or label not in {str(index) for index in range(len(LABELS))}:
        expected = " or ".join(str(index) for index in range(len(LABELS)))
        raise DataError(
            f"{path}:{number}: expected {expected}, a tab and a text, not {line[:60]!r}"
        )
    return Example(text=text, label=int(label))
