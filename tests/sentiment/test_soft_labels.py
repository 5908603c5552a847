"""Labelling by a teacher, which can be stopped."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.sentiment import soft_labels as module
from project.sentiment import train
from project.sentiment.data import DataError
from project.sentiment.fitting import Recipe
from project.sentiment.model import SentimentClassifier
from project.sentiment.soft_labels import SoftLabel, label, read_soft_labels

TEXTS = ["i like you", "i hate you", "a wonderful , moving film", "it is n't worth a minute"]


@pytest.fixture
def teacher(base: Path, labelled: Path, tmp_path: Path) -> Path:
    """A tiny fine-tuned model."""
    output = tmp_path / "teacher"
    train.train(str(base), labelled, labelled, output, Recipe(epochs=1, batch_size=4))
    return output


def test_labels_are_the_teachers(teacher: Path, tmp_path: Path) -> None:
    """Every text once, with the teacher's probabilities to bfloat16's precision."""
    output = tmp_path / "soft.tsv"

    label([*TEXTS, TEXTS[0]], str(teacher), output)

    found = {each.text: each.probability() for each in read_soft_labels(output)}
    assert set(found) == set(TEXTS)
    for text, answer in zip(TEXTS, SentimentClassifier(teacher).predict(TEXTS), strict=True):
        assert found[text] == pytest.approx(answer.scores["POSITIVE"], abs=0.02)


def test_goes_on_after_a_kill(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row without its end is dropped and labelled again; whole rows are kept as they are."""
    output = tmp_path / "soft.tsv"
    output.write_text(f"9.0\t-9.0\t{TEXTS[1]}\n1.5\t-1.", encoding="utf-8")
    monkeypatch.setattr(module, "BATCH_TOKENS", 8)  # a text a batch

    label(TEXTS, str(teacher), output)

    found = read_soft_labels(output)
    assert found[0] == SoftLabel(TEXTS[1], (9.0, -9.0))
    assert sorted(each.text for each in found) == sorted(TEXTS)


def test_killed_in_the_first_row(teacher: Path, tmp_path: Path) -> None:
    """A file with no whole row is begun again."""
    output = tmp_path / "soft.tsv"
    output.write_text("1.5", encoding="utf-8")

    label(TEXTS[:1], str(teacher), output)

    assert [each.text for each in read_soft_labels(output)] == TEXTS[:1]


def test_temperature_flattens() -> None:
    """A higher temperature moves a probability towards one half."""
    soft = SoftLabel("a", (-1.0, 1.0))

    assert soft.probability() == pytest.approx(0.8808, abs=1e-4)
    assert soft.probability(4.0) == pytest.approx(0.6225, abs=1e-4)


def test_mistake_is_named(tmp_path: Path) -> None:
    """File and line of a row that is no soft label."""
    path = tmp_path / "soft.tsv"
    path.write_text("0\t1\ta\nx\t1\tb\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"soft\.tsv:2: no soft label"):
        read_soft_labels(path)
