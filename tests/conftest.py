"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from project.settings import Settings
from tests.helpers import FakeClassifier, RuntimeProcess, write_cortex_yaml


@pytest.fixture(autouse=True, scope="session")
def _clean_environment(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """The settings of whoever runs the tests must not reach them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in Settings.model_fields:
            patch.delenv(name.upper(), raising=False)
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
            patch.delenv(name, raising=False)
        patch.setenv("HF_HUB_OFFLINE", "1")
        if not pytestconfig.getoption("base_url", None):  # which may begin with https
            # httpx spends 30 ms on reading certificates with every call.
            patch.delenv("SSL_CERT_FILE", raising=False)
            patch.setenv("SSL_CERT_DIR", str(tmp_path_factory.mktemp("certificates")))
        yield


@pytest.fixture
def _uncovered(monkeypatch: pytest.MonkeyPatch) -> None:
    """For processes whose coverage is mostly lost, being killed, or not looked at."""
    for name in ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def classifier() -> FakeClassifier:
    """A model that answers at once."""
    return FakeClassifier()


@pytest.fixture
def cortex_yaml(tmp_path: Path) -> Path:
    """A ``cortex.yaml`` whose container has a free port."""
    return write_cortex_yaml(tmp_path)


@pytest.fixture
def start_runtime(cortex_yaml: Path) -> Iterator[Callable[..., RuntimeProcess]]:
    """Starts ``python -m project.asyncapi`` beside ``cortex.yaml``; ended after the test."""
    started: list[RuntimeProcess] = []

    def start(*arguments: str, fault: str = "", inside: Sequence[str] = ()) -> RuntimeProcess:
        process = RuntimeProcess(cortex_yaml.parent, arguments, fault, inside)
        started.append(process)
        return process

    yield start
    for process in started:
        process.close()
