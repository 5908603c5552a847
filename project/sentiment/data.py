"""Reading labelled files: a header line, then ``label<TAB>text`` a row, as GLUE ships SST-2."""

from __future__ import annotations

import re
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


PENN_TREEBANK = (
    (re.compile(r" (n't|'s|'re|'ve|'ll|'d|'m)\b"), r"\1"),
    (re.compile(r"-lrb- ?"), "("),
    (re.compile(r" ?-rrb-"), ")"),
    (re.compile(r"`` ?| ?''"), '"'),
    (re.compile(r" ([.,!?;:])"), r"\1"),
)
"""Spellings of SST-2's tokeniser (Marcus et al. 1993), and what people write instead."""


def detokenize(text: str) -> str:
    """Undo SST-2's tokeniser: ``do n't like it .`` becomes ``don't like it.``."""
    for pattern, replacement in PENN_TREEBANK:
        text = pattern.sub(replacement, text)
    return text


def read_examples(path: Path) -> list[Example]:
    """Read a labelled TSV file.

    Raises:
        DataError: the file is missing, empty, or a row is not ``label<TAB>text``; the message names
            the file, the line and what was found.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}") from error
    rows = [(number, line.rstrip("\r")) for number, line in enumerate(lines[1:], start=2)]
    examples = [_parse_row(path, number, line) for number, line in rows if line]
    if not examples:
        raise DataError(f"{path}: no rows below the header line")
    return examples


def _parse_row(path: Path, number: int, line: str) -> Example:
    label, tab, text = line.partition("\t")
    if not tab or label not in {str(index) for index in range(len(LABELS))}:
        expected = " or ".join(str(index) for index in range(len(LABELS)))
        raise DataError(
            f"{path}:{number}: expected {expected}, a tab and a text, not {line[:60]!r}"
        )
    return Example(text=text, label=int(label))
