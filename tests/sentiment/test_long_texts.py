"""The measurement of long texts: that it varies what it says it varies."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.long_texts import main


def test_overlap_is_varied(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A larger overlap takes more windows; every aggregation has a row for each."""
    options = ["--documents", "2", "--windows", "64", "--overlaps", "0", "0.5"]

    assert main([str(labelled), *options]) == 0

    table = capsys.readouterr().out
    rows = re.findall(r"^\| 64 \| (\d+) \| ([\d.]+) \| ([a-z ]+) \|", table, re.MULTILINE)
    windows = {int(overlap): float(count) for overlap, count, _ in rows}
    assert len(rows) == 2 * 4
    assert windows[32] > 1.5 * windows[0] > 1.5
