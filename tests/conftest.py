"""Fixtures for all tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from project.settings import Settings
from tests.helpers import FakeClassifier, RuntimeProcess, free_port


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings of whoever runs the tests must not reach them."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def classifier() -> FakeClassifier:
    """A model that answers at once."""
    return FakeClassifier()


@pytest.fixture
def cortex_yaml(tmp_path: Path) -> Path:
    """A ``cortex.yaml`` whose container has a free port."""
    port = free_port()
    path = tmp_path / "cortex.yaml"
    path.write_text(
        f"""
- name: sentiment
  kind: AsyncAPI
  pod:
    port: {port}
    max_concurrency: 4
    containers:
      - name: api
        image: sentiment
        env: {{ENABLE_METRICS: "true"}}
        readiness_probe:
          http_get: {{port: {port}, path: /healthcheck}}
""",
        encoding="utf-8",
    )
    return path


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
