"""Distillation, whole, on tiny models; and that it survives a kill."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from project.sentiment import calibration
from project.sentiment import distill as module
from project.sentiment.calibration import margins, reliability
from project.sentiment.data import Example, read_examples
from project.sentiment.distill import average, student_rows, teacher_examples
from project.sentiment.evaluate import evaluate
from project.sentiment.fitting import last_checkpoint
from project.sentiment.model import SentimentClassifier
from project.sentiment.phrases import hold_back
from project.sentiment.runs import RUN_FILE, held_back_of, read_record
from project.sentiment.soft_labels import SoftLabel, read_soft_labels
from tests.helpers import wait_until


def test_whole_recipe(base: Path, sentences: Path, tmp_path: Path) -> None:
    """Teacher, labels, warm-up, two students, their average, calibration: a model that serves."""
    shared = ["--train", str(sentences), "--held-back", "4"]

    def run(command: str, base: Path, output: str, *more: str) -> Path:
        arguments = [command, "--base", str(base), "--output", str(tmp_path / output)]
        assert module.main([*arguments, *shared, *more]) == 0
        return tmp_path / output

    quick = ["--epochs", "30", "--learning-rate", "0.003"]
    teacher = run("teacher", base, "teacher", "--phrases", "1", *quick)
    labelling = ["--teacher", str(teacher), "--changed", "5"]
    soft = [
        run("label", base, f"soft-{part}.tsv", *labelling, "--part", f"{part}/2") for part in (0, 1)
    ]
    unlabelled = tmp_path / "unlabelled.txt"
    held_back = hold_back(read_examples(sentences), 4).held_back[0].text
    found = ["a film of which nobody knows .", "another one .", held_back.upper()]
    unlabelled.write_text("\n".join(found), encoding="utf-8")
    soft.append(
        run("label", base, "more.tsv", "--teacher", str(teacher), "--texts", str(unlabelled))
    )
    warm = run("warm-up", base, "warm", *quick)
    given = ["--phrases", "3", "--soft", *map(str, soft), "--domain", "6", *quick]
    students = [
        run("student", warm, f"student-{seed}", "--seed", seed, *given) for seed in ("0", "1")
    ]
    student, served = tmp_path / "student", tmp_path / "served"
    assert module.main(["average", *map(str, students), "--output", str(student)]) == 0
    calibrated = [str(student), "--train", str(sentences), "--output", str(served)]
    assert calibration.main(calibrated) == 0

    assert sum(len(read_soft_labels(each)) for each in soft) == 12 + 4 + 5 + 2
    assert {each.text for each in read_soft_labels(soft[-1])} == set(found[:2])
    losses = [
        each["eval_loss"]
        for each in json.loads((warm / "log.json").read_text("utf-8"))
        if "eval_loss" in each
    ]
    assert losses[-1] < losses[0]
    examples = held_back_of(served, sentences, None)
    assert len(examples) == 4
    assert evaluate(SentimentClassifier(served), examples).accuracy == 1.0
    figures = [
        reliability(margins(SentimentClassifier(folder), examples), examples)
        for folder in (student, served)
    ]
    assert figures[1].nll <= figures[0].nll + 1e-3  # half precision
    assert figures[1].nll < math.log(2)  # of a head that knows nothing


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


def test_treebank_spelling_is_mixed_in() -> None:
    """Some texts with brackets are spelled as the dev set spells them."""
    soft = [SoftLabel(f"{number} ( so )", (2.0, 0.0)) for number in range(400)]

    rows = student_rows([], soft, phrases=0, seed=0)

    escaped = sum(text.endswith(" -lrb- so -rrb-") for text, _ in rows) / len(rows)
    assert escaped == pytest.approx(module.ESCAPED_SHARE, abs=0.1)


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


def warm_up(base: Path, sentences: Path, output: Path) -> list[str]:
    """The arguments of a short run."""
    data = ["--train", str(sentences), "--held-back", "4", "--epochs", "2", "--seed", "0"]
    return ["warm-up", "--base", str(base), "--output", str(output), *data]


@pytest.fixture(scope="module")
def ended(base: Path, sentences: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a short run leaves; to be read only."""
    output = tmp_path_factory.mktemp("ended") / "warm"
    assert module.main(warm_up(base, sentences, output)) == 0
    return output


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "1", "seed 0, not 1"),
        ("--epochs", "3", "epochs 2.0, not 3.0"),
        ("--learning-rate", "0.5", "learning_rate 0.0001, not 0.5"),
        ("--held-back", "5", "held_back 4, not 5"),
        ("--train", "{other}", "rows_digest"),
        ("--base", "{model}", "base"),
    ],
)
def test_another_run_is_refused(
    option: str,
    value: str,
    message: str,
    base: Path,
    sentences: Path,
    ended: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A run goes on with what it was begun with; with anything else, nothing is changed."""
    output = shutil.copytree(ended, tmp_path / "warm")
    other = tmp_path / "other.tsv"
    other.write_text(sentences.read_text(encoding="utf-8").replace("film", "moving"), "utf-8")
    before = {path: path.read_bytes() for path in output.rglob("*") if path.is_file()}
    value = value.format(other=other, model=output)
    capsys.readouterr()

    assert module.main([*warm_up(base, sentences, output), option, value]) == 2

    assert message in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.rglob("*") if path.is_file()} == before


def test_unknown_checkpoints_are_refused(
    base: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Checkpoints without a record may be of any run."""
    output = tmp_path / "warm"
    (output / "checkpoints").mkdir(parents=True)

    assert module.main(warm_up(base, sentences, output)) == 2
    assert "run.json is missing" in capsys.readouterr().err


def test_labels_of_one_teacher(
    base: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file has the labels of one teacher, and of texts without one set of held-back sentences.

    A limit that is raised goes on; so does another part.
    """
    teachers = [tmp_path / "0", tmp_path / "1"]
    for seed, teacher in enumerate(teachers):
        assert module.main([*warm_up(base, sentences, teacher), "--seed", str(seed)]) == 0
    soft = tmp_path / "soft.tsv"
    shared = ["--base", str(base), "--train", str(sentences), "--output"]
    labelling = ["label", *shared, str(soft), "--teacher", str(teachers[0]), "--changed", "5"]
    held = ["--held-back", "4"]

    assert module.main([*labelling, *held, "--limit", "3"]) == 0
    assert len(read_soft_labels(soft)) == 3
    assert module.main([*labelling, *held, "--limit", "9"]) == 0
    assert len(read_soft_labels(soft)) == 9
    capsys.readouterr()
    assert module.main([*labelling, *held, "--teacher", str(teachers[1])]) == 2
    assert "begun with teacher" in capsys.readouterr().err
    assert module.main([*labelling, *held, "--texts", str(sentences)]) == 2
    assert "leave out --texts" in capsys.readouterr().err
    assert module.main([*labelling, "--held-back", "5"]) == 2
    assert "4 sentences were held back" in capsys.readouterr().err
    student = ["student", *shared, str(tmp_path / "student"), "--soft", str(soft)]
    assert module.main([*student, "--held-back", "5"]) == 2
    assert "soft.tsv.run.json: 4 sentences were held back" in capsys.readouterr().err
    (tmp_path / "soft.tsv.run.json").unlink()
    assert module.main([*student, *held]) == 2
    assert module.main([*labelling, *held]) == 2
    assert len(read_soft_labels(soft)) == 9


def test_nothing_held_back_is_learned(base: Path, sentences: Path, tmp_path: Path) -> None:
    """A held-back sentence is left out of what the teacher says, wherever it came from."""
    split = hold_back(read_examples(sentences), 4)
    soft = [SoftLabel(each.text, (1.0, 0.0)) for each in split.train]
    held = [SoftLabel(each.text, (1.0, 0.0)) for each in split.held_back]
    recipe = replace(module.STUDENT, epochs=1.0)

    for name, labels in (("without", soft), ("with", held + soft)):
        module.distill(str(base), split, labels, tmp_path / name, recipe, phrases=3, domain=6)

    assert read_record(tmp_path / "with" / RUN_FILE) == read_record(tmp_path / "without" / RUN_FILE)


def test_averages_are_of_one_start(
    base: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Models from different starts, or of other held-back sentences, have no average."""
    folders = [tmp_path / "0", tmp_path / "1", tmp_path / "2"]
    assert module.main(warm_up(base, sentences, folders[0])) == 0
    assert module.main(warm_up(folders[0], sentences, folders[1])) == 0
    assert module.main([*warm_up(base, sentences, folders[2]), "--held-back", "5"]) == 0
    output = ["--output", str(tmp_path / "mean")]

    for other in folders[1:]:
        assert module.main(["average", str(folders[0]), str(other), *output]) == 2
        assert "no average" in capsys.readouterr().err
    assert not (tmp_path / "mean").exists()


def test_examples_of_the_teacher_are_repeatable() -> None:
    """The sample does not follow the order of a set, not even among texts of both labels."""
    train = [Example(f"so so number {number}", label) for number in range(40) for label in (0, 1)]
    whole = Example(" . ".join(each.text for each in train), 1)

    sample = teacher_examples([whole, *train], 20, seed=3)

    in_order = sorted(train, key=lambda each: (each.text, each.label))
    assert sample == [whole, *random.Random(3).sample(in_order, 20)]  # noqa: S311  (no secret)


def test_rows_do_not_depend_on_the_order_of_labels() -> None:
    """Labelling that was stopped, or done in parts, writes the same rows in another order."""
    train = [Example(f"phrase {number}", number % 2) for number in range(60)]
    soft = [SoftLabel(f"text {number} .", (number / 9, 0.0)) for number in range(60)]
    soft += [SoftLabel("text 3 .", (7.0, 0.0))]  # of two parts that overlap

    rows = student_rows(train, soft, phrases=9, seed=0)

    assert student_rows(train, soft[::-1], phrases=9, seed=0) == rows
    assert len(rows) == 69


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
