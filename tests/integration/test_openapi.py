"""The OpenAPI document: it holds what is served, is shown without the internet, and is true."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from project.app import create_app
from project.settings import Settings
from tests.helpers import ROOT, FakeClassifier, serve, wait_until


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A container that is ready."""
    with serve(create_app(Settings(), lambda _: FakeClassifier())) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").status_code == 200)
        yield url


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_load_nothing_from_elsewhere(url: str, page: str) -> None:
    """Every script, style and picture comes from the container, and is there."""
    html = httpx.get(url + page).text

    links = re.findall(r"""(?:src|href|spec-url)=["']([^"']+)["']|url: '([^']+)'""", html)
    targets = [first or second for first, second in links]
    assert "/openapi.json" in targets
    assert not re.search("https?://", html)
    assert len(targets) >= 3
    for target in targets:
        assert target.startswith("/"), f"{target} is elsewhere"
        assert httpx.get(url + target).status_code == 200, target


def test_examples_are_answered(url: str) -> None:
    """Every example that the page offers to send gets a prediction."""
    operation = httpx.get(f"{url}/openapi.json").json()["paths"]["/"]["post"]
    bodies = operation["requestBody"]["content"]
    examples = [each["value"] for each in bodies["application/json"]["examples"].values()]

    answers = [httpx.post(url, json=example).json() for example in examples]
    answers.append(
        httpx.post(url, data=bodies["application/x-www-form-urlencoded"]["example"]).json()
    )
    plain = {"content": bodies["text/plain"]["example"], "headers": {"Content-Type": "text/plain"}}
    answers.append(httpx.post(url, **plain).json())

    predictions = [each for answer in answers for each in answer.get("predictions", [answer])]
    assert len(predictions) > len(answers)
    assert {each["label"] for each in predictions} == {"POSITIVE"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on the path")
def test_curl_commands_work(url: str) -> None:
    """Every curl command in the description does, word for word."""
    operation = httpx.get(f"{url}/openapi.json").json()["paths"]["/"]["post"]
    commands = re.findall(r"^    (curl .*)$", operation["description"], re.MULTILINE)

    for command in commands:
        done = subprocess.run(
            ["/bin/sh", "-c", command.replace("http://localhost:8000", url)],
            capture_output=True,
            check=True,
        )
        assert json.loads(done.stdout)["label"] == "POSITIVE", command
    assert len(commands) == 5


@pytest.mark.usefixtures("_uncovered")
def test_schemathesis_finds_nothing(url: str, tmp_path: Path) -> None:
    """All its checks, on requests that the document allows and on such as it does not.

    schemathesis run http://127.0.0.1:8000/openapi.json --checks all --max-examples 1000  is the
    long form.
    """
    command = [
        "run",
        f"{url}/openapi.json",
        "--checks",
        "all",
        "--max-examples",
        "25",
        "--no-color",
    ]

    done = subprocess.run(
        [str(Path(sys.executable).with_name("schemathesis")), *command, "--seed", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    assert "No issues found" in done.stdout
