"""Training, whole, on a base model of two tiny layers."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.sentiment import train as module
from tests.sentiment.conftest import sentiment_pipeline


def test_learns_and_saves(
    base: Path, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model learns its 16 rows; what is saved is complete, and pads no more than needed."""
    output = tmp_path / "output"
    arguments = ["--base", str(base), "--train", str(labelled), "--dev", str(labelled)]
    arguments += ["--output", str(output), "--epochs", "20", "--batch-size", "4"]

    assert module.main([*arguments, "--learning-rate", "0.003"]) == 0

    assert "best accuracy" in capsys.readouterr().out
    assert (output / "model.safetensors").stat().st_mode & 0o777 == 0o644
    classify = sentiment_pipeline(model=str(output))
    assert [each["label"] for each in classify(["i like you", "i hate you"])] == [
        "POSITIVE",
        "NEGATIVE",
    ]
    assert str(classify.model.dtype) == "torch.float32"
    assert len(classify.tokenizer("i like you")["input_ids"]) == 5


def test_missing_data_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the path, before anything is loaded."""
    nothing = str(tmp_path / "nothing.tsv")
    arguments = ["--base", "b", "--train", nothing, "--dev", nothing, "--output", "o"]

    assert module.main(arguments) == 2
    assert nothing in capsys.readouterr().err
