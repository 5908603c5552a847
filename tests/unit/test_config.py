"""Reading cortex.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.asyncapi.config import ConfigError, Probe, read_config
from tests.helpers import ROOT

MINIMAL = """
- name: sentiment
  kind: AsyncAPI
  pod:
    containers:
      - {name: api, image: sentiment}
"""


def write(tmp_path: Path, text: str) -> Path:
    """A cortex.yaml of ``text``."""
    path = tmp_path / "cortex.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_shipped_file() -> None:
    """The file at the top level describes the container as it is."""
    api = read_config(ROOT / "cortex.yaml")

    assert (api.name, api.endpoint, api.pod.port) == ("sentiment", "sentiment", 8000)
    assert api.env["ENABLE_METRICS"] == "true"
    assert api.env["CORTEX_PORT"] == "8000"
    assert api.readiness_probe.http_get is not None
    assert api.readiness_probe.http_get.path == "/healthcheck"


def test_defaults_are_cortex_s(tmp_path: Path) -> None:
    """What the file does not say is as Cortex documents it."""
    api = read_config(write(tmp_path, MINIMAL))

    assert (api.pod.port, api.pod.max_concurrency) == (8080, 1)
    assert api.endpoint == "sentiment"
    assert api.readiness_probe == Probe.model_validate(
        {"tcp_socket": {"port": 8080}, "period_seconds": 1}
    )


def test_endpoint_is_configurable(tmp_path: Path) -> None:
    """networking.endpoint replaces the name in the path."""
    api = read_config(write(tmp_path, MINIMAL + "  networking: {endpoint: /text/mood}\n"))

    assert api.endpoint == "text/mood"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "valid list"),
        ("- [", "cortex.yaml"),
        ("[]", "describes 0 APIs"),
        (MINIMAL + MINIMAL, "describes 2 APIs"),
        (MINIMAL.replace("AsyncAPI", "RealtimeAPI"), "0.kind: Input should be 'AsyncAPI'"),
        (MINIMAL.replace("containers", "container"), "0.pod.containers: Field required"),
        (MINIMAL + "  speed: 11\n", "0.speed: Extra inputs"),
        (
            MINIMAL.replace("pod:", "pod:\n    max_concurrency: 101"),
            "0.pod.max_concurrency: Input should be less than or equal to 100",
        ),
        (
            MINIMAL.replace("sentiment}", "sentiment, readiness_probe: {period_seconds: 1}}"),
            "exactly one of http_get, tcp_socket and exec",
        ),
    ],
)
def test_mistake_is_named(tmp_path: Path, text: str, message: str) -> None:
    """The message holds the file, the key and what is wrong."""
    path = write(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    """No file is an error of the same kind."""
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml")
