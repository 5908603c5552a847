"""The commands of the images and of compose.yaml, run on what the images would hold."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
import yaml

from tests.dockerfile import copied, of_stage, read_dockerfile
from tests.helpers import DEADLINE, ROOT, free_port, poll, submit, wait_until

DOCKERFILE = read_dockerfile(ROOT / "Dockerfile")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
ASYNCAPI = COMPOSE["services"]["asyncapi"]

Start = Callable[[Sequence[str], str], subprocess.Popen[bytes]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image's /app."""
    folder = tmp_path_factory.mktemp("app")
    for stage in ("code", "model"):
        for source, target in copied(DOCKERFILE, stage, ROOT).items():
            (folder / target).parent.mkdir(parents=True, exist_ok=True)
            (folder / target).symlink_to(source)
    (folder / "cortex.yaml").symlink_to(ROOT / "cortex.yaml")
    return folder


@pytest.fixture
def start(app: Path) -> Iterator[Start]:
    """Starts a command in /app on a port; ended after the test."""
    with ExitStack() as stack:

        def run(command: Sequence[str], port: str) -> subprocess.Popen[bytes]:
            process = stack.enter_context(
                subprocess.Popen(command, cwd=app, env={**os.environ, "CORTEX_PORT": port})
            )
            stack.callback(process.kill)
            return process

        yield run


def here(words: Sequence[str], instead: dict[str, str]) -> list[str]:
    """A command with this interpreter, and with this machine's ports and folders."""
    changed = list(words)
    for old, new in instead.items():
        assert any(old in word for word in changed), f"{old} is not in {changed}"
        changed = [word.replace(old, new) for word in changed]
    return [sys.executable, *changed[1:]]


def passes(command: Sequence[str], port: str) -> bool:
    """Whether a health check does."""
    environment = {**os.environ, "CORTEX_PORT": port}
    done = subprocess.run(
        command, env=environment, capture_output=True, check=False, timeout=DEADLINE
    )
    return done.returncode == 0


def entrypoint() -> list[str]:
    """The service image's."""
    (instruction,) = of_stage(DOCKERFILE, "service", "ENTRYPOINT")
    return here(instruction.words(), {})


def test_service_image_serves(start: Start) -> None:
    """Its entrypoint answers on Cortex's port, its health check sees that, SIGTERM ends it."""
    port = f"{free_port()}"
    (instruction,) = of_stage(DOCKERFILE, "service", "HEALTHCHECK")
    check = here(json.loads(instruction.value.partition("CMD ")[2]), {})

    assert not passes(check, port)
    process = start(entrypoint(), port)
    wait_until(lambda: passes(check, port))
    answer = httpx.post(f"http://127.0.0.1:{port}/", json={"input_text": "i like you"})

    assert answer.json()["label"] == "POSITIVE"
    process.terminate()
    assert process.wait(DEADLINE) in {0, -signal.SIGTERM}


def test_composed_asyncapi_serves(start: Start, tmp_path: Path) -> None:
    """The AsyncAPI of compose.yaml sends requests to a container that others started."""
    port, container = f"{free_port()}", f"{free_port()}"
    places = {
        "0.0.0.0": "127.0.0.1",  # noqa: S104
        "/queue": f"{tmp_path}",
        "container:8000": f"localhost:{container}",
    }
    words = [*ASYNCAPI["entrypoint"], *ASYNCAPI["command"], "--port", port, "--metrics-port", "0"]
    check = here(ASYNCAPI["healthcheck"]["test"][1:], {"8888": port})

    start(entrypoint(), container)
    process = start(here(words, places), port)
    wait_until(lambda: passes(check, port))
    url = f"http://127.0.0.1:{port}/sentiment"
    request_id = submit(url, {"input_text": "i hate you"})
    answer = wait_until(lambda: poll(url, request_id))

    assert answer["result"]["label"] == "NEGATIVE"
    process.terminate()
    assert process.wait(DEADLINE) == 0
