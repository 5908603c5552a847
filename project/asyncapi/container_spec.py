"""The configuration of a container of an AsyncAPI's pod: probes, compute, environment.

Source: see project/asyncapi/spec.py
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import SkipJsonSchema

from project.asyncapi.section import (
    DNS_LABEL,
    Count,
    Image,
    KeyProblem,
    Section,
    URLPath,
    none_of,
)
from project.asyncapi.units import MAX_INT32, Cpu, Memory, SharedMemory, parse_quantity

RESERVED_NAMES = ("dequeuer", "proxy")
RESERVED_PORTS = (8888, 15000)
RESERVED_PREFIXES = ("CORTEX_", "KUBEXIT_")

ENV_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")


def _own_env_name(name: str) -> str:
    if not ENV_NAME.fullmatch(name):
        raise ValueError("is no name of an environment variable: letters, digits, _, - and .")
    if name.startswith(RESERVED_PREFIXES):
        raise ValueError("CORTEX_ and KUBEXIT_ begin the names of Cortex's own variables")
    return name


ContainerName = Annotated[
    str,
    Field(max_length=63),
    DNS_LABEL,
    none_of(RESERVED_NAMES, "the name of a container of Cortex's own"),
]
EnvName = Annotated[str, AfterValidator(_own_env_name)]
Port = Annotated[int, Field(ge=1, le=65535), none_of(RESERVED_PORTS, "a port of Cortex's own")]
Command = Annotated[list[str], Field(min_length=1)]
Seconds = Annotated[int, Field(ge=1, le=MAX_INT32)]


def _exactly_one(*ways: str) -> ConfigDict:
    """In a JSON schema: exactly one of ``ways`` is given."""
    return ConfigDict(json_schema_extra={"oneOf": [{"required": [way]} for way in ways]})


class HttpGet(Section):
    """A path that must answer with a status from 200 to 399."""

    port: Port
    """Where the container listens."""
    path: URLPath = "/"
    """What is asked for."""


class TcpSocket(Section):
    """A port that must accept a connection."""

    port: Port
    """Where the container listens."""


class Exec(Section):
    """A command that must exit with 0; it is run without a shell, in the root folder."""

    command: Command
    """The program and its arguments."""


class _Question(Section):
    """A section with exactly one way to ask a container."""

    ways: ClassVar[tuple[str, ...]]

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        given = [way for way in self.ways if getattr(self, way) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none"
            raise ValueError(f"must have exactly one of {', '.join(self.ways)}: it has {found}")
        return self


class Probe(_Question):
    """A question that is asked again and again; times in seconds."""

    ways: ClassVar[tuple[str, ...]] = ("http_get", "tcp_socket", "exec")
    model_config = _exactly_one(*ways)

    http_get: HttpGet | None = None
    """Ask by HTTP."""
    tcp_socket: TcpSocket | None = None
    """Ask by connecting."""
    exec: Exec | None = None
    """Ask by running a command in the container."""
    initial_delay_seconds: Annotated[int, Field(ge=0, le=MAX_INT32)] = 0
    """From the start of the container to the first question."""
    timeout_seconds: Seconds = 1
    """A question without an answer for so long has failed."""
    period_seconds: Seconds = 10
    """From one question to the next."""
    success_threshold: Seconds = 1
    """Successes in a row that make a failed container healthy."""
    failure_threshold: Seconds = 3
    """Failures in a row that make a healthy container a failed one."""


class ReadinessProbe(Probe):
    """While it fails, the dequeuer pulls no request for this pod."""

    ways = ("http_get", "tcp_socket")
    model_config = _exactly_one(*ways)

    exec: SkipJsonSchema[None] = None

    @field_validator("exec", mode="before")
    @classmethod
    def _not_exec(cls, value: object) -> None:
        raise ValueError("is not for a readiness probe: Cortex's dequeuer cannot run commands")


class LivenessProbe(Probe):
    """Once it has failed, the container is started anew."""

    model_config = _exactly_one(*Probe.ways)

    success_threshold: Literal[1] = 1
    """Kubernetes takes 1 only."""


class Hook(_Question):
    """What is done before a container is told to stop, within the pod's 60 s to do so."""

    ways = ("http_get", "exec")
    model_config = _exactly_one(*ways)

    http_get: HttpGet | None = None
    """Send a request."""
    exec: Exec | None = None
    """Run a command in the container."""


class Compute(Section):
    """What is requested for a container; Cortex sets no limit but for gpu and inf."""

    cpu: Cpu | None = "200m"
    """Cores: a number, or thousandths with the suffix m."""
    mem: Memory | None = None
    """Bytes: a quantity such as 512Mi."""
    gpu: Count = 0
    """GPUs."""
    inf: Count = 0
    """Inferentia chips."""
    shm: SharedMemory | None = None
    """Bytes of /dev/shm, as a quantity."""

    @model_validator(mode="after")
    def _shm_within_mem(self) -> Self:
        shm, mem = self.shm or "0", self.mem or self.shm or "0"
        if parse_quantity(shm) > parse_quantity(mem):
            raise KeyProblem(f"must be at most mem, {mem}, not {shm}", "shm")
        return self


class Container(Section):
    """One container of the pod."""

    name: ContainerName
    """Of the container, once in the pod."""
    image: Image
    """What is run."""
    command: list[str] | None = None
    """The program and its first arguments, without a shell; null: the image's ENTRYPOINT."""
    args: list[str] | None = None
    """Further arguments; null: the image's CMD."""
    env: dict[EnvName, str] = Field(default_factory=dict)
    """Environment variables; values are strings."""
    compute: Compute = Compute()
    """What is requested of a node."""
    readiness_probe: ReadinessProbe | None = None
    """Decides whether requests are pulled for the pod."""
    liveness_probe: LivenessProbe | None = None
    """Decides whether the container is started anew."""
    pre_stop: Hook | None = None
    """Done before the container is told to stop."""
