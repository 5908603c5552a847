"""Options, markers, and the API under test: ``--base-url``, or this project's own as a process."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import DEADLINE, Api, wait_until

CONTAINER = Path(__file__).parent / "container.py"
ROOT = Path(__file__).parents[2]
OWN_CONCURRENCY = 4

MARKERS = {
    "ingress": "what the ingress in front adds or refuses; not with --no-ingress",
    "faithful": "what Cortex loses; only with --faithful",
    "redelivering": "what this project does instead, inside the contract; not with --faithful",
    "slow": "40 s and more; only with --slow",
}

CORTEX_YAML = """
- name: sentiment
  kind: AsyncAPI
  pod:
    port: {port}
    max_concurrency: {max_concurrency}
    containers:
      - name: api
        image: conformance
        readiness_probe:
          http_get: {{port: {port}, path: /healthcheck}}
          period_seconds: 1
          failure_threshold: 1
"""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The suite's options."""
    group = parser.getgroup("conformance")
    group.addoption("--base-url", help="of an AsyncAPI in front of container.py; else ours is run")
    group.addoption("--max-concurrency", type=int, help="of its pod (1; ours: 4)")
    group.addoption("--faithful", action="store_true", help="expect what Cortex loses")
    group.addoption("--no-ingress", action="store_true", help="nothing plays the ingress in front")
    group.addoption("--slow", action="store_true", help="also answers of 40 s")


def pytest_configure(config: pytest.Config) -> None:
    """The suite's markers."""
    for name, meaning in MARKERS.items():
        config.addinivalue_line("markers", f"{name}: {meaning}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what the options rule out."""
    faithful = config.getoption("faithful", False)
    ruled_out = {
        "ingress": (config.getoption("no_ingress", False), "--no-ingress"),
        "faithful": (not faithful, "needs --faithful"),
        "redelivering": (faithful, "--faithful"),
        "slow": (not config.getoption("slow", False), "needs --slow"),
    }
    for item in items:
        for name, (out, why) in ruled_out.items():
            if out and item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="session")
def behind_ingress(pytestconfig: pytest.Config) -> bool:
    """Whether what the ingress adds is to be seen."""
    return not pytestconfig.getoption("no_ingress", False)


@pytest.fixture(scope="session")
def api(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API under test."""
    url = pytestconfig.getoption("base_url", None)
    concurrency = pytestconfig.getoption("max_concurrency", None)
    if url:
        yield Api(url.rstrip("/"), concurrency or 1)
        return
    faithful = ["--faithful"] if pytestconfig.getoption("faithful", False) else []
    yield from _own(tmp_path_factory.mktemp("runtime"), concurrency or OWN_CONCURRENCY, faithful)


@pytest.fixture
def token() -> str:
    """A name for the container's receipts that no other test has."""
    return secrets.token_hex(8)


def _own(folder: Path, max_concurrency: int, options: list[str]) -> Iterator[Api]:
    if not (ROOT / "project" / "asyncapi").is_dir():
        pytest.exit("no AsyncAPI of our own here: --base-url is needed", returncode=4)
    config = folder / "cortex.yaml"
    config.write_text(
        CORTEX_YAML.format(port=free_port(), max_concurrency=max_concurrency), encoding="utf-8"
    )
    container = f"{sys.executable} -S {CONTAINER} --host 127.0.0.1 --port $(CORTEX_PORT)"
    runtime = [sys.executable, "-m", "project.asyncapi", "--port", "0", "--metrics-port", "0"]
    output = folder / "output.txt"
    with output.open("w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [*runtime, "--command", container, *options],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield Api(_url(process, output.read_text), max_concurrency)
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _url(process: subprocess.Popen[bytes], output: Callable[[], str]) -> str:
    wait_until(lambda: "\nready: " in f"\n{output()}" or process.poll() is not None)
    found = re.search(r"^ready: .*?(http://[^\s,]+)", output(), re.MULTILINE)
    assert found, output()
    return found[1]


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
