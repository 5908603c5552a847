"""Distillation, whole, on tiny models; and that it survives a kill."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from project.sentiment import calibration
from project.sentiment import distill as module
from project.sentiment.data import Example
from project.sentiment.distill import average, student_rows
from project.sentiment.fitting import last_checkpoint
from project.sentiment.model import SentimentClassifier
from project.sentiment.soft_labels import SoftLabel, read_soft_labels
from tests.helpers import wait_until

SUBJECTS = ["i", "film", "it", "minute"]
OPINIONS = {"like you": 1, "hate you": 0, "a wonderful moving": 1, "is n't worth a": 0}


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    """A labelled file of sentences, and of phrases that are parts of them."""
    path = tmp_path / "sentences.tsv"
    rows = [
        f"{label}\t{subject} {opinion} ."
        for subject, (opinion, label) in itertools.product(SUBJECTS, OPINIONS.items())
    ]
    rows += [f"{label}\t{opinion}" for opinion, label in OPINIONS.items()]
    path.write_text("\n".join(["label\tsentence", *rows]) + "\n", encoding="utf-8")
    return path


def test_whole_recipe(base: Path, sentences: Path, tmp_path: Path) -> None:
    """Teacher, labels, warm-up, two students, their average, calibration: a model that serves."""
    shared = ["--train", str(sentences), "--held-back", "4"]

    def run(command: str, base: Path, output: str, *more: str) -> Path:
        arguments = [command, "--base", str(base), "--output", str(tmp_path / output)]
        assert module.main([*arguments, *shared, *more]) == 0
        return tmp_path / output

    quick = ["--epochs", "2", "--learning-rate", "0.003"]
    teacher = run("teacher", base, "teacher", "--phrases", "1", *quick)
    labelling = ["--teacher", str(teacher), "--changed", "5"]
    soft = [
        run("label", base, f"soft-{part}.tsv", *labelling, "--part", f"{part}/2") for part in (0, 1)
    ]
    warm = run("warm-up", base, "warm", *quick)
    given = ["--phrases", "3", "--soft", *map(str, soft), "--domain", "6", *quick]
    students = [
        run("student", warm, f"student-{seed}", "--seed", seed, *given) for seed in ("0", "1")
    ]
    student, served = tmp_path / "student", tmp_path / "served"
    assert module.main(["average", *map(str, students), "--output", str(student)]) == 0
    calibrated = [str(student), "--train", str(sentences), "--held-back", "4"]
    assert calibration.main([*calibrated, "--output", str(served)]) == 0

    assert sum(len(read_soft_labels(each)) for each in soft) == 12 + 4 + 5
    assert (students[0] / "report.json").exists()
    (answer,) = SentimentClassifier(served).predict(["i like you"])
    assert sum(answer.scores.values()) == pytest.approx(1.0)


def test_goes_on_after_a_kill(
    base: Path, sentences: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL after a checkpoint: the same command goes on from it, and ends."""
    output = tmp_path / "warm"
    arguments = ["warm-up", "--base", str(base), "--train", str(sentences), "--held-back", "4"]
    arguments += ["--output", str(output), "--epochs", "101"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "project.sentiment.distill", *arguments]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_until(lambda: last_checkpoint(output / "checkpoints"), seconds=100)
    finally:
        process.kill()
        process.wait()
    assert not (output / "model.safetensors").exists()

    with caplog.at_level("INFO"):
        assert module.main(arguments) == 0

    assert "from checkpoint" in caplog.text
    assert "checkpoint-100" in caplog.text
    assert (output / "model.safetensors").exists()


def test_partial_checkpoint_is_passed_over(tmp_path: Path) -> None:
    """A checkpoint without its last file was being written when the run was killed."""
    for number, state in ((900, "{}"), (1000, "{}"), (1100, ""), (1200, None)):
        folder = tmp_path / f"checkpoint-{number}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state, encoding="utf-8")

    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-1000"
    assert last_checkpoint(tmp_path / "nothing") is None


def test_targets_of_the_student(monkeypatch: pytest.MonkeyPatch) -> None:
    """A label moves the teacher's probability by its share; texts that one has not have the other.

    The teacher need not be asked about every phrase, and SST-2 has no label for changed texts.
    """
    monkeypatch.setattr(module, "NATURAL_SHARE", 0.0)
    train = [Example("fine", 1), Example("bad", 0)]
    soft = [SoftLabel("fine", (0.0, 0.0)), SoftLabel("mine", (0.0, 0.0))]

    rows = student_rows(train, soft, phrases=1, seed=0)

    assert dict(rows) == pytest.approx(
        {"fine": 0.5 + 0.5 * module.LABEL_SHARE, "bad": 0.05, "mine": 0.5}
    )


def test_natural_spelling_is_mixed_in() -> None:
    """Some texts are spelled as people write, with the label of the text they were made from."""
    soft = [SoftLabel(f"{number} is n't .", (2.0, 0.0)) for number in range(200)]

    rows = student_rows([], soft, phrases=0, seed=0)

    natural = sum(text.endswith("isn't.") for text, _ in rows) / len(rows)
    assert natural == pytest.approx(module.NATURAL_SHARE, abs=0.1)
    assert len({target for _, target in rows}) == 1


def test_average_of_weights(base: Path, sentences: Path, tmp_path: Path) -> None:
    """Every tensor is the mean of the models' tensors."""
    folders = []
    for seed in ("0", "1"):
        folders.append(tmp_path / seed)
        arguments = ["warm-up", "--base", str(base), "--train", str(sentences), "--held-back", "4"]
        arguments += ["--output", str(folders[-1]), "--epochs", "1", "--seed", seed]
        assert module.main(arguments) == 0

    average(folders, tmp_path / "mean")

    one, other, mean = (
        load_file(folder / "model.safetensors") for folder in (*folders, tmp_path / "mean")
    )
    assert any(not torch.equal(one[name], other[name]) for name in one)
    for name, value in mean.items():
        torch.testing.assert_close(value, (one[name] + other[name]) / 2)


@pytest.mark.parametrize(
    ("file", "message"), [("nothing.tsv", "nothing.tsv"), (None, "800 to hold back")]
)
def test_mistake_is_said(
    file: str | None, message: str, sentences: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and what is wrong, before a model is loaded."""
    arguments = ["warm-up", "--base", "b", "--train", file or str(sentences), "--output", "o"]

    assert module.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_impossible_part(capsys: pytest.CaptureFixture[str]) -> None:
    """A part that is none is refused by the command line."""
    arguments = ["label", "--base", "b", "--train", "t", "--output", "o", "--teacher", "t"]

    with pytest.raises(SystemExit):
        module.main([*arguments, "--part", "2/2"])
    assert "--part" in capsys.readouterr().err
