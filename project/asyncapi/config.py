"""Reads ``cortex.yaml``: the part of Cortex's AsyncAPI configuration that one machine can honour.

Source: https://docs.cortex.dev/workloads/async/configuration
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

CLUSTER_ONLY = Field(default=None, description="for the cluster: read, and of no effect here")


class ConfigError(ValueError):
    """``cortex.yaml`` could not be read, or does not describe an AsyncAPI."""


class _Section(BaseModel):
    # A key that Cortex does not know is refused here as it is there.
    model_config = ConfigDict(frozen=True, extra="forbid")


class HttpGet(_Section):
    """A path that must answer 200 to 399."""

    port: int
    path: str = "/"


class TcpSocket(_Section):
    """A port that must accept connections."""

    port: int


class Exec(_Section):
    """A command that must exit with 0."""

    command: list[str]


class Probe(_Section):
    """A periodic probe; times in seconds."""

    http_get: HttpGet | None = None
    tcp_socket: TcpSocket | None = None
    exec: Exec | None = None
    initial_delay_seconds: int = Field(0, ge=0)
    timeout_seconds: int = Field(1, ge=1)
    period_seconds: int = Field(10, ge=1)
    success_threshold: int = Field(1, ge=1)
    failure_threshold: int = Field(3, ge=1)

    @model_validator(mode="after")
    def _one_kind(self) -> Probe:
        kinds = [kind for kind in (self.http_get, self.tcp_socket, self.exec) if kind is not None]
        if len(kinds) != 1:
            raise ValueError("specify exactly one of http_get, tcp_socket and exec")
        return self


class Hook(_Section):
    """What is done before a container is told to stop."""

    http_get: HttpGet | None = None
    exec: Exec | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> Hook:
        if (self.http_get is None) == (self.exec is None):
            raise ValueError("specify exactly one of http_get and exec")
        return self


class Container(_Section):
    """One container of the pod; its ``env`` reaches the local process too."""

    name: str
    image: str
    command: list[str] | None = None
    args: list[str] | None = None
    env: dict[str, str] = {}
    compute: dict[str, Any] | None = CLUSTER_ONLY
    readiness_probe: Probe | None = None
    liveness_probe: Probe | None = None
    pre_stop: Hook | None = None


class Pod(_Section):
    """The container to serve, and how many requests it takes at once."""

    port: int = Field(8080, ge=1, le=65535)
    max_concurrency: int = Field(1, ge=1, le=100)
    containers: list[Container] = Field(min_length=1)


class Networking(_Section):
    """Where the API is found."""

    endpoint: str | None = None


class AsyncAPI(_Section):
    """One API of ``cortex.yaml``."""

    name: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$")]
    kind: Literal["AsyncAPI"]
    pod: Pod
    autoscaling: dict[str, Any] | None = CLUSTER_ONLY
    node_groups: list[str] | None = CLUSTER_ONLY
    update_strategy: dict[str, Any] | None = CLUSTER_ONLY
    networking: Networking = Networking()

    @property
    def endpoint(self) -> str:
        """The path below which the API answers, without slashes at its ends."""
        return (self.networking.endpoint or self.name).strip("/")

    @property
    def env(self) -> dict[str, str]:
        """The environment of the container that is sent the requests."""
        return {**self.pod.containers[0].env, "CORTEX_PORT": str(self.pod.port)}

    @property
    def readiness_probes(self) -> list[Probe]:
        """The probe of ``cortex.yaml``, and Cortex's own: the pod's port, every second.

        A configured probe that connects to the pod's port replaces Cortex's.
        """
        configured = self.pod.containers[0].readiness_probe
        port = TcpSocket(port=self.pod.port)
        own = Probe(tcp_socket=port, period_seconds=1, failure_threshold=1)
        if configured is None:
            return [own]
        return [configured] if configured.tcp_socket == port else [configured, own]


def read_config(path: Path) -> list[AsyncAPI]:
    """Read the APIs that ``path`` describes, in its order.

    Raises:
        ConfigError: the message names the file, the key and what is wrong with it.
    """
    try:
        documents = yaml.safe_load(path.read_text(encoding="utf-8"))
        apis = TypeAdapter(list[AsyncAPI]).validate_python(documents)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: {error}") from error
    except ValidationError as error:
        problems = (f"{_key(each['loc'])}: {each['msg']}" for each in error.errors())
        raise ConfigError(f"{path}: {'; '.join(problems)}") from error
    _check(path, apis)
    return apis


def _check(path: Path, apis: Sequence[AsyncAPI]) -> None:
    """What the APIs must be together."""
    if not apis:
        raise ConfigError(f"{path}: describes no API")
    _check_unique(path, "name", [api.name for api in apis])
    _check_unique(path, "networking.endpoint", [api.endpoint for api in apis])
    for api in apis:
        probe = api.pod.containers[0].readiness_probe
        if probe is not None and probe.exec is not None:
            raise ConfigError(
                f"{path}: {api.name}: readiness_probe.exec: Cortex's dequeuer knows http_get and "
                "tcp_socket only"
            )


def _check_unique(path: Path, key: str, values: Sequence[str]) -> None:
    for value in values:
        if values.count(value) > 1:
            raise ConfigError(f"{path}: {key}: {value!r} is used by more than one API")


def _key(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
