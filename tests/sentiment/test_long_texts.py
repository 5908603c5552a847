"""The measurement of long texts: that it varies what it says it varies."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from bench.long_texts import main
from project.sentiment.data import read_examples
from project.sentiment.files import WEIGHTS
from project.sentiment.phrases import hold_back
from project.sentiment.runs import RunError, held_back_record, record_of, write_record


def test_overlap_is_varied(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A larger overlap takes more windows; every aggregation has a row for each."""
    options = ["--documents", "2", "--windows", "64", "--overlaps", "0", "0.5"]

    assert main([str(labelled), *options]) == 0

    table = capsys.readouterr().out
    rows = re.findall(r"^\| 64 \| (\d+) \| ([\d.]+) \| ([a-z ]+) \|", table, re.MULTILINE)
    windows = {int(overlap): float(count) for overlap, count, _ in rows}
    assert len(rows) == 2 * 4
    assert windows[32] > 1.5 * windows[0] > 1.5


def test_sentences_that_were_held_back(
    sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With ``--train``, documents are made of what the model was not trained on."""
    model = tmp_path / "model"
    shutil.copytree(WEIGHTS, model, copy_function=os.symlink)
    record_of(model).unlink(missing_ok=True)
    options = ["--model", str(model), "--documents", "2", "--windows", "64", "--overlaps", "0"]

    with pytest.raises(RunError, match="missing"):
        main(["--train", str(sentences), *options])

    held_back = hold_back(read_examples(sentences), 6).held_back
    write_record(record_of(model), held_back_record(held_back))
    assert main(["--train", str(sentences), *options]) == 0
    assert len(re.findall(r"^\| 64 \| 0 \|", capsys.readouterr().out, re.MULTILINE)) == 4
