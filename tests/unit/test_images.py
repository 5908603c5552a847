"""What the images promise, as far as it can be seen without building them."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from project.sentiment.model import SAMPLE_TEXTS
from tests.dockerfile import copied, of_stage, read_dockerfile
from tests.helpers import ROOT

SERVICE = ROOT / "Dockerfile"
MODEL = ROOT / "project/sentiment/Dockerfile.sentiment"
FINAL = {SERVICE: "service", MODEL: "final"}
both = pytest.mark.parametrize("path", [SERVICE, MODEL], ids=["service", "model"])


@both
def test_final_stage_is_hardened(path: Path) -> None:
    """It is the last one, runs as a numbered user that is not root, and gets every signal."""
    instructions = read_dockerfile(path)
    final = of_stage(instructions, FINAL[path])

    assert instructions[-1] == final[-1]
    (user,) = [each.value for each in final if each.name == "USER"]
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    (entrypoint,) = [each for each in final if each.name == "ENTRYPOINT"]
    assert entrypoint.value.startswith("["), "the shell form would keep signals from the server"


@both
def test_base_is_pinned(path: Path) -> None:
    """Every stage starts from another one, or from the one base image that the label names."""
    instructions = read_dockerfile(path)
    stages = {each.stage for each in instructions}
    bases = {each.value.split()[0] for each in instructions if each.name == "FROM"} - stages

    assert bases - {"model${MODEL:+-exported}"} == {"python:3.11-slim-bookworm"}
    (labels,) = of_stage(instructions, FINAL[path], "LABEL")
    named = dict(word.partition("=")[::2] for word in labels.words())
    assert named["org.opencontainers.image.base.name"].endswith("/python:3.11-slim-bookworm")
    assert named["org.opencontainers.image.licenses"] == "Apache-2.0"


@both
def test_installs_nothing_unpinned(path: Path) -> None:
    """Every pip install reads a file of pinned versions, and keeps no cache."""
    installs = [
        each.value
        for each in read_dockerfile(path)
        if each.name == "RUN" and "pip --python" in each.value
    ]

    assert installs
    for install in installs:
        assert "--no-cache-dir" in install
        (file,) = re.findall(r"--(?:requirement|constraint) (\S+)", install)
        pinned = (path.parent / file).read_text(encoding="utf-8")
        assert all("==" in line for line in pinned.splitlines() if line[:1].isalnum())


def test_default_build_needs_no_torch() -> None:
    """Only the stages that export a model and run the tests install more than the service needs."""
    instructions = read_dockerfile(SERVICE)
    heavy = {each.stage for each in instructions if "sentiment/requirements" in each.value}
    heavy |= {each.stage for each in instructions if "requirements-test" in each.value}

    assert heavy == {"model-exported", "test"}
    copies = [each.words()[0] for each in of_stage(instructions, "service", "COPY")]
    assert copies == ["--from=dependencies", "--from=baked", "--from=code"]


def test_version_is_the_project_s() -> None:
    """The label says what pyproject.toml says."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    (labels,) = of_stage(read_dockerfile(SERVICE), "service", "LABEL")
    assert f"org.opencontainers.image.version={project['version']}" in labels.words()


def test_service_has_all_modules() -> None:
    """The image gets every module of the project, and of the other files none."""
    files = copied(read_dockerfile(SERVICE), "code", ROOT)

    assert set(files) == set((ROOT / "project").rglob("*.py"))
    assert all(ROOT / target == source for source, target in files.items())


def test_client_s_packages_stay_out() -> None:
    """What is uninstalled again is required by rich alone, which the project does not import."""
    (text,) = [each.value for each in read_dockerfile(SERVICE) if "uninstall" in each.value]
    removed = text.partition("uninstall --yes ")[2].partition(" &&")[0].split()
    pinned = (ROOT / "requirements.txt").read_text(encoding="utf-8")

    for name in removed:
        (comment,) = re.findall(rf"^{name}==\S+\n((?:    #.*\n)+)", pinned, re.MULTILINE)
        needed_by = set(re.findall(r"# +(?:via )?([\w-]+)", comment)) - {"via"}
        assert needed_by <= {*removed, "sentiment-asyncapi"}, name
    for path in (ROOT / "project").rglob("*.py"):
        assert not re.search(
            r"^\s*(import|from) rich", path.read_text(encoding="utf-8"), re.MULTILINE
        )


def test_context_is_clean() -> None:
    """What git ignores, the builder ignores as well."""
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split("\n")
    for pattern in (ROOT / ".gitignore").read_text(encoding="utf-8").split():
        name = pattern.rstrip("/").replace("*", "x")
        assert any(fnmatch.fnmatch(name, line.removeprefix("**/")) for line in ignored), pattern
    assert ".git" in ignored


def test_model_image_prints_predictions(tmp_path: Path) -> None:
    """What the model's image copies is enough to print a line per sample text, or argument."""
    instructions = read_dockerfile(MODEL)
    for source, target in copied(instructions, "code", MODEL.parent).items():
        (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / target).symlink_to(source)
    (entrypoint,) = of_stage(instructions, "final", "ENTRYPOINT")
    command = [sys.executable, *entrypoint.words()[1:]]

    for arguments, texts in (([], SAMPLE_TEXTS), (["great", "awful"], ["great", "awful"])):
        done = subprocess.run(
            [*command, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        printed = [json.loads(line) for line in done.stdout.splitlines()]
        assert [each["text"] for each in printed] == list(texts)
        assert [each["label"] for each in printed] == ["POSITIVE", "NEGATIVE"]
