"""Reading cortex.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest

from project.asyncapi.config import AsyncAPI, ConfigError, Exec, HttpGet, Probe, read_config
from tests.helpers import ROOT

MINIMAL = """
- name: sentiment
  kind: AsyncAPI
  pod:
    containers:
      - {name: api, image: sentiment}
"""
SECOND = MINIMAL.replace("name: sentiment", "name: second")
CORTEX_S_OWN = Probe.model_validate(
    {"tcp_socket": {"port": 8080}, "period_seconds": 1, "failure_threshold": 1}
)


def write(tmp_path: Path, text: str) -> Path:
    """A cortex.yaml of ``text``."""
    path = tmp_path / "cortex.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def container(more: str) -> str:
    """A file whose container has ``more`` keys."""
    return MINIMAL.replace("image: sentiment}", f"image: sentiment, {more}}}")


def read_one(tmp_path: Path, text: str) -> AsyncAPI:
    """The one API of ``text``."""
    (api,) = read_config(write(tmp_path, text))
    return api


def test_shipped_file() -> None:
    """The file at the top level describes the container as it is."""
    (api,) = read_config(ROOT / "cortex.yaml")

    assert (api.name, api.endpoint, api.pod.port) == ("sentiment", "sentiment", 8000)
    assert api.env["ENABLE_METRICS"] == "true"
    assert api.env["CORTEX_PORT"] == "8000"
    health = HttpGet(port=8000, path="/healthcheck")
    assert [probe.http_get for probe in api.readiness_probes] == [health, None]
    assert api.pod.containers[0].liveness_probe is not None
    assert api.pod.containers[0].liveness_probe.http_get == health


def test_defaults_are_cortex_s(tmp_path: Path) -> None:
    """What the file does not say is as Cortex documents it."""
    api = read_one(tmp_path, MINIMAL)

    assert (api.pod.port, api.pod.max_concurrency) == (8080, 1)
    assert api.endpoint == "sentiment"
    assert api.readiness_probes == [CORTEX_S_OWN]
    assert api.pod.containers[0].liveness_probe is None
    assert api.pod.containers[0].pre_stop is None


def test_defaults_of_a_probe_are_kubernetes_s(tmp_path: Path) -> None:
    """Ten seconds, one second, three failures."""
    api = read_one(tmp_path, container("readiness_probe: {http_get: {port: 9}}"))

    configured = api.readiness_probes[0]
    assert configured.http_get == HttpGet(port=9, path="/")
    assert (configured.initial_delay_seconds, configured.timeout_seconds) == (0, 1)
    assert (configured.period_seconds, configured.success_threshold) == (10, 1)
    assert configured.failure_threshold == 3


@pytest.mark.parametrize(
    ("probe", "own_too"),
    [
        ("{http_get: {port: 8080}}", True),
        ("{tcp_socket: {port: 9000}}", True),
        ("{tcp_socket: {port: 8080}}", False),
    ],
)
def test_own_probe_beside_a_configured_one(tmp_path: Path, probe: str, own_too: bool) -> None:
    """Cortex goes on to connect to the port, unless the configured probe does just that."""
    configured, *others = read_one(
        tmp_path, container(f"readiness_probe: {probe}")
    ).readiness_probes

    assert configured.period_seconds == 10
    assert others == ([CORTEX_S_OWN] if own_too else [])


def test_endpoint_is_configurable(tmp_path: Path) -> None:
    """networking.endpoint replaces the name in the path."""
    api = read_one(tmp_path, MINIMAL + "  networking: {endpoint: /text/mood}\n")

    assert api.endpoint == "text/mood"


def test_several_apis(tmp_path: Path) -> None:
    """All are read, in the file's order."""
    apis = read_config(write(tmp_path, SECOND + MINIMAL))

    assert [api.name for api in apis] == ["second", "sentiment"]


@pytest.mark.parametrize("command", ["[sleep, '1']", '["sleep", "1"]'])
def test_pre_stop(tmp_path: Path, command: str) -> None:
    """A hook is a command or a path."""
    api = read_one(tmp_path, container(f"pre_stop: {{exec: {{command: {command}}}}}"))
    hook = api.pod.containers[0].pre_stop
    assert hook is not None
    assert hook.exec == Exec(command=["sleep", "1"])

    api = read_one(tmp_path, container("pre_stop: {http_get: {port: 1, path: /bye}}"))
    hook = api.pod.containers[0].pre_stop
    assert hook is not None
    assert hook.http_get == HttpGet(port=1, path="/bye")


def test_what_only_a_cluster_does_is_read(tmp_path: Path) -> None:
    """A file of a cluster is good here, too."""
    more = (
        "  autoscaling: {min_replicas: 2}\n  node_groups: [a]\n  update_strategy: {max_surge: 1}\n"
    )

    assert read_one(tmp_path, MINIMAL + more).autoscaling == {"min_replicas": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "valid list"),
        ("- [", "cortex.yaml"),
        ("[]", "describes no API"),
        (MINIMAL + MINIMAL, "name: 'sentiment' is used by more than one API"),
        (
            MINIMAL + SECOND + "  networking: {endpoint: /sentiment/}\n",
            "networking.endpoint: 'sentiment' is used by more than one API",
        ),
        (MINIMAL.replace("AsyncAPI", "RealtimeAPI"), "0.kind: Input should be 'AsyncAPI'"),
        (MINIMAL + SECOND.replace("AsyncAPI", "TaskAPI"), "1.kind: Input should be 'AsyncAPI'"),
        (MINIMAL.replace("name: sentiment", "name: Sentiment_1"), "0.name: String should match"),
        (MINIMAL.replace("containers", "container"), "0.pod.containers: Field required"),
        (MINIMAL + "  speed: 11\n", "0.speed: Extra inputs"),
        (
            MINIMAL.replace("pod:", "pod:\n    max_concurrency: 101"),
            "0.pod.max_concurrency: Input should be less than or equal to 100",
        ),
        (
            container("readiness_probe: {period_seconds: 1}"),
            "exactly one of http_get, tcp_socket and exec",
        ),
        (
            container("readiness_probe: {exec: {command: ['true']}}"),
            "sentiment: readiness_probe.exec: Cortex's dequeuer knows http_get and tcp_socket only",
        ),
        (
            container("pre_stop: {}"),
            "0.pod.containers.0.pre_stop: Value error, specify exactly one",
        ),
        (
            container("pre_stop: {http_get: {port: 1}, exec: {command: [a]}}"),
            "exactly one of http_get and exec",
        ),
        (container("pre_stop: {tcp_socket: {port: 1}}"), "pre_stop.tcp_socket: Extra inputs"),
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
