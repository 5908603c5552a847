"""Labelling by a teacher, which can be stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from project.sentiment import soft_labels as module
from project.sentiment.data import DataError
from project.sentiment.fitting import load_tokenizer
from project.sentiment.model import SentimentClassifier
from project.sentiment.soft_labels import SoftLabel, label, read_soft_labels

TEXTS = ["i like you", "i hate you", "a wonderful , moving film", "it is n't worth a minute"]


@pytest.fixture
def teacher(trained: Path) -> Path:
    """A tiny fine-tuned model."""
    return trained


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


def test_stopped_labelling_gives_the_same_labels(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text goes through the teacher in the batch that it is in without a stop.

    In bfloat16, the logits of a text depend a little on how far its batch is padded.
    """
    seen: list[tuple[str, ...]] = []

    def spied(folder: str) -> Any:  # noqa: ANN401  (as the library)
        tokenizer = load_tokenizer(folder)

        def tokenize(batch: list[str], **options: object) -> Any:  # noqa: ANN401
            if "padding" in options:
                seen.append(tuple(batch))
            return tokenizer(batch, **options)

        return tokenize

    monkeypatch.setattr("project.sentiment.soft_labels.load_tokenizer", spied)
    monkeypatch.setattr(module, "BATCH_TOKENS", 30)
    texts = [f"{text}{number * ' film'}" for text in TEXTS for number in range(5)]
    label(texts, str(teacher), tmp_path / "whole.tsv")
    rows = (tmp_path / "whole.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "stopped.tsv").write_text("".join(rows[:8]), encoding="utf-8")
    whole, seen = seen, []

    label(texts, str(teacher), tmp_path / "stopped.tsv")

    assert set(seen) < set(whole)
    assert (tmp_path / "stopped.tsv").read_text(encoding="utf-8") == "".join(rows)


def test_nothing_to_label(teacher: Path, tmp_path: Path) -> None:
    """No texts, no labels: a part of few texts may have none."""
    label([], str(teacher), tmp_path / "soft.tsv")

    assert (tmp_path / "soft.tsv").read_text(encoding="utf-8") == ""


def test_killed_in_the_first_row(teacher: Path, tmp_path: Path) -> None:
    """A file with no whole row is begun again."""
    output = tmp_path / "soft.tsv"
    output.write_text("1.5", encoding="utf-8")

    label(TEXTS[:1], str(teacher), output)

    assert [each.text for each in read_soft_labels(output)] == TEXTS[:1]


@pytest.mark.parametrize(
    ("logits", "probability"),
    [((-1.0, 1.0), 0.8808), ((0.0, 0.0), 0.5), ((900.0, -900.0), 0.0), ((-900.0, 900.0), 1.0)],
)
def test_probability(logits: tuple[float, float], probability: float) -> None:
    """Of POSITIVE, also where exponentials end."""
    assert SoftLabel("a", logits).probability() == pytest.approx(probability, abs=1e-4)


def test_mistake_is_named(tmp_path: Path) -> None:
    """File and line of a row that is no soft label."""
    path = tmp_path / "soft.tsv"
    path.write_text("0\t1\ta\nx\t1\tb\n", encoding="utf-8")

    with pytest.raises(DataError, match=r"soft\.tsv:2: no soft label"):
        read_soft_labels(path)
