"""Models that are named by a Hub id and a revision; a Hub on this machine serves them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier
from tests.helpers import ROOT
from tests.sentiment.hub import Repository, hub

PREDICT = """
import dataclasses, json, sys
from project.sentiment.files import ModelError
from project.sentiment.model import SentimentClassifier
from project.sentiment.options import BackendName
try:
    classifier = SentimentClassifier(*sys.argv[1:], backend=BackendName.ONNX)
except ModelError as error:
    sys.exit(str(error))
print(json.dumps([classifier.name, dict(classifier.predict(["i like you"])[0].scores)]))
"""


def run(endpoint: str, home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: the Hub's address is read when its library is imported."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, cwd=ROOT,
        env={**inherited, "HF_ENDPOINT": endpoint, "HF_HOME": str(home)},
    )  # fmt: skip


def test_exported_model_is_served(tmp_path: Path, shipped: SentimentClassifier) -> None:
    """A revision with a graph is downloaded and computed as a local folder is."""
    repository = Repository("me/exported", WEIGHTS, revisions=("v1",))
    with hub(repository) as endpoint:
        done = run(endpoint, tmp_path, "-c", PREDICT, "me/exported", "v1")

    assert done.returncode == 0, done.stderr
    name, scores = json.loads(done.stdout)
    assert name == "me/exported"
    assert scores == pytest.approx(dict(shipped.predict(["i like you"])[0].scores), abs=1e-6)
    assert "README.md" not in repository.asked


def test_unknown_revision_is_named(tmp_path: Path) -> None:
    """The error says which model, and what the Hub said."""
    with hub(Repository("me/exported", WEIGHTS)) as endpoint:
        done = run(endpoint, tmp_path, "-c", PREDICT, "me/exported", "no-such")

    assert done.returncode == 1
    assert "model 'me/exported' is no folder, and cannot be downloaded" in done.stderr


@pytest.mark.usefixtures("_uncovered")  # tracing torch's export takes as long as the export
def test_export_of_a_revision(model: Path, tmp_path: Path) -> None:
    """What the Hub has at a revision becomes a folder of its own, with graph and golden answers."""
    output = tmp_path / "exported"
    with hub(Repository("me/tiny", model, revisions=("v1",))) as endpoint:
        done = run(
            endpoint, tmp_path / "home", "-m", "project.sentiment.export", "me/tiny",
            "--revision", "v1", "--output", str(output),
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert {"model.onnx", "golden.json", "model.safetensors"} <= {
        path.name for path in output.iterdir()
    }
    assert not any(path.is_symlink() for path in output.iterdir())
    ours = SentimentClassifier(output).predict(["i like you"])[0]
    assert ours.scores == pytest.approx(
        SentimentClassifier(model).predict(["i like you"])[0].scores, abs=1e-4
    )


@pytest.mark.usefixtures("_uncovered")
def test_export_of_old_weights(model: Path, tmp_path: Path) -> None:
    """Where the Hub has pickled weights only they are fetched, and stored as serving reads them."""
    output, expected = tmp_path / "exported", SentimentClassifier(model).predict(["i like you"])
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    (model / "training_args.bin").write_bytes(b"of no use")
    repository = Repository("me/old", model)
    with hub(repository) as endpoint:
        done = run(
            endpoint, tmp_path / "home", "-m", "project.sentiment.export", "me/old",
            "--output", str(output),
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert "training_args.bin" not in repository.asked
    ours = SentimentClassifier(output).predict(["i like you"])
    assert ours[0].scores == pytest.approx(expected[0].scores, abs=1e-4)


def test_old_weights_are_left_where_there_are_others(tmp_path: Path) -> None:
    """The same weights are not downloaded twice."""
    folder = tmp_path / "both"
    shutil.copytree(WEIGHTS, folder)
    (folder / "pytorch_model.bin").write_bytes(b"the same")
    repository = Repository("me/both", folder)
    with hub(repository) as endpoint:
        done = run(endpoint, tmp_path, "-c", PREDICT, "me/both")

    assert done.returncode == 0, done.stderr
    assert "pytorch_model.bin" not in repository.asked
