"""Reading cortex.yaml."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from project.asyncapi.config import ConfigError, read_config
from project.asyncapi.container_spec import Exec, HttpGet, Probe
from project.asyncapi.spec import AsyncAPI
from tests.helpers import ROOT
from tests.unit.cortex_files import API, CLUSTER, spoiled

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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("    port: 8000\n    max", "    port:\n    max"),
        ("max_concurrency: 4", "max_concurrency: 100"),
        ("image: sentiment:1", "image: localhost:5000/team/sentiment"),
        ("image: sentiment:1", "image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/a_b/c.d:V-1_2"),
        ("image: sentiment:1", f"image: quay.io/team/sentiment:1@sha256:{'0a' * 32}"),
        ("image: sentiment:1", "image: sentiment:1\n        command:\n        args: []"),
        ("image: sentiment:1", "image: sentiment:1\n        args: [--port, $(CORTEX_PORT)]"),
        ("{LEVEL: debug}", "{}"),
        ("{LEVEL: debug}", "{LEVEL: '', log.level: a, _x-1: 'yes', DATE: 2026-11-27}"),
        ("cpu: 200m", "cpu: 1"),
        ("cpu: 200m", "cpu: 0.5"),
        ("cpu: 200m", "cpu:"),
        ("cpu: 200m", "cpu: 20m"),
        ("mem: 64Mi", "mem: 2.5Gi, gpu: 1, shm: 64Mi"),
        ("mem: 64Mi", "mem:, inf: 1, shm: 1Gi"),
        ("compute: {cpu: 200m, mem: 64Mi}", "compute: {}"),
        ("path: /healthcheck}", "path: health/deep/}"),
        ("period_seconds: 1", "initial_delay_seconds: 0"),
        ("tcp_socket: {port: 8000}", "exec: {command: ['true']}"),
        ("tcp_socket: {port: 8000}", "http_get: {port: 9000}\n          tcp_socket:"),
        ("min_replicas: 1", "min_replicas: 0"),
        ("min_replicas: 1", "min_replicas: 3\n    init_replicas: 3"),
        ("max_replicas: 3", "target_in_flight: 0.5\n    window: 10s"),
        ("max_replicas: 3", "window: 1h\n    upscale_stabilization_period: 0s"),
        ("max_replicas: 3", "max_downscale_factor: 0\n    max_upscale_factor: 10"),
        ("node_groups: [cpu]", "node_groups:"),
        ("node_groups: [cpu]", "node_groups: [cpu-spot, CPU_2]"),
        ("max_surge: 25%", 'max_surge: "1"'),
        ("max_unavailable: 0", "max_unavailable: 100%"),
        ("endpoint: /sentiment", "endpoint: v1/sentiment.en/"),
        ("networking: {endpoint: /sentiment}", "networking: {}"),
    ],
)
def test_every_form_is_taken(tmp_path: Path, old: str, new: str) -> None:
    """What Cortex takes is taken."""
    assert read_one(tmp_path, spoiled(API, old, new)).name == "sentiment"


def test_dependent_defaults_are_written_out(tmp_path: Path) -> None:
    """A default that is another value is that value."""
    api = read_one(tmp_path, MINIMAL.replace("pod:", "pod:\n    max_concurrency: 7"))

    filled = api.with_defaults()
    assert filled.autoscaling.target_in_flight == 7
    assert filled.networking.endpoint == "/sentiment"
    assert filled.autoscaling.init_replicas == filled.autoscaling.min_replicas == 1
    api = read_one(tmp_path, MINIMAL + "  autoscaling: {min_replicas: 2}\n")
    assert api.autoscaling.init_replicas == 2


def test_two_containers(tmp_path: Path) -> None:
    """The first one is sent the requests, here."""
    text = MINIMAL + "      - {name: side, image: side, env: {A: b}}\n"

    assert read_one(tmp_path, text).env == {"CORTEX_PORT": "8080"}


def test_mistake_is_named(tmp_path: Path) -> None:
    """The message holds the file, the line, the key and what is wrong; see test_broken_files.py."""
    path = write(tmp_path, MINIMAL + "  speed: 11\n")

    with pytest.raises(ConfigError) as caught:
        read_config(path)
    assert str(caught.value).startswith(f"{path}:7: [0].speed: is no key of this section")


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    """No file, a folder, or no text is an error of the same kind."""
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"\xff\xfe")

    for path, reason in (
        (tmp_path / "none.yaml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (binary, "is not text in UTF-8"),
    ):
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: {reason}"):
            read_config(path)


def test_a_cluster_is_no_api(tmp_path: Path) -> None:
    """The runtime says what it needs."""
    with pytest.raises(ConfigError, match="must be a list of APIs"):
        read_config(write(tmp_path, CLUSTER))
