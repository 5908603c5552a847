"""Figures of a model on a labelled file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.sentiment import distill
from project.sentiment import evaluate as module
from project.sentiment.data import DataError, read_examples
from project.sentiment.evaluate import evaluate, wilson_interval
from tests.helpers import FakeClassifier


def test_figures(labelled: Path) -> None:
    """A model that says POSITIVE to everything: half right."""
    figures = evaluate(FakeClassifier(), read_examples(labelled))

    assert (figures.texts, figures.accuracy) == (16, 0.5)
    assert figures.f1 == pytest.approx(2 / 3)
    assert figures.confusion == {
        "NEGATIVE": {"NEGATIVE": 0, "POSITIVE": 8},
        "POSITIVE": {"NEGATIVE": 0, "POSITIVE": 8},
    }
    assert figures.accuracy_low < 0.5 < figures.accuracy_high
    assert figures.texts_per_second > 0


def test_wilson_interval() -> None:
    """The interval of 81 of 263, as Newcombe (1998, table I) has it."""
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)


def test_other_labels_are_refused(labelled: Path) -> None:
    """A model of other labels has no accuracy here."""
    classifier = FakeClassifier()
    classifier.label = "LABEL_1"

    with pytest.raises(DataError, match="LABEL_1"):
        evaluate(classifier, read_examples(labelled))


def test_command_line(labelled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped model on the file, as JSON."""
    assert module.main([str(labelled)]) == 0

    assert json.loads(capsys.readouterr().out)["accuracy"] >= 0.75


@pytest.mark.parametrize("arguments", [["nothing.tsv"], ["nothing.tsv", "--model", "/nowhere"]])
def test_what_is_missing_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and the path."""
    assert module.main(arguments) == 2

    assert arguments[-1] in capsys.readouterr().err


def test_held_back_sentences(
    base: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the model's record says was held back is measured; another number is refused."""
    model, train = tmp_path / "model", ["--train", str(sentences)]
    arguments = ["warm-up", "--base", str(base), *train, "--output", str(model), "--epochs", "1"]
    assert distill.main([*arguments, "--held-back", "4"]) == 0
    capsys.readouterr()

    assert module.main([str(model), *train]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 4
    assert module.main([str(model), *train, "--held-back", "4"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 4
    assert module.main([str(model), *train, "--held-back", "5"]) == 2
    assert "4 sentences were held back" in capsys.readouterr().err


def test_held_back_sentences_of_another_file(
    base: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same number of sentences of another file is not what was held back."""
    model = tmp_path / "model"
    arguments = ["warm-up", "--base", str(base), "--output", str(model), "--epochs", "1"]
    assert distill.main([*arguments, "--train", str(sentences), "--held-back", "4"]) == 0
    other = tmp_path / "other.tsv"
    other.write_text(sentences.read_text(encoding="utf-8").replace(" .", " !"), "utf-8")

    assert module.main([str(model), "--train", str(other)]) == 2
    assert "--train" in capsys.readouterr().err


def test_model_without_a_record(
    model: Path, sentences: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was held back must be said where nothing says it; plain training holds nothing back."""
    held = ["--train", str(sentences), "--held-back", "4"]

    assert module.main([str(model), *held]) == 2
    assert "trained on every sentence" in capsys.readouterr().err
    (model / "run.json").unlink()
    assert module.main([str(model), "--train", str(sentences)]) == 2
    assert "run.json" in capsys.readouterr().err
    assert module.main([str(model), *held]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == 4
