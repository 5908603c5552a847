"""The configuration of Cortex's AsyncAPIs: every key of ``cortex.yaml``, default and limit.

What Cortex's code accepts counts, not what its documents say; where this is stricter than both,
docs/cortex.md has the reason.

Source: https://docs.cortex.dev/workloads/async/configuration and, in cortexlabs/cortex 0.42.1,
pkg/types/spec/validations.go and pkg/consts/consts.go
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, model_validator

from project.asyncapi.container_spec import Container, Port, Probe, TcpSocket
from project.asyncapi.section import (
    DNS_LABEL,
    KeyProblem,
    NotNull,
    Section,
    URLPath,
    check_unique,
    matches,
)
from project.asyncapi.units import MAX_INT32, Duration, Share, Window, parse_share

DEFAULT_PORT = 8080
OTHER_KINDS = ("RealtimeAPI", "BatchAPI", "TaskAPI", "TrafficSplitter")


def _no_b_prefix(name: str) -> str:
    if name.startswith("b-"):
        raise ValueError("must not begin with b-: Cortex names the queues of batch jobs so")
    return name


def _port_or_default(port: object) -> object:
    return DEFAULT_PORT if port is None else port


def _endpoint(path: str) -> str:
    if path == "/":
        raise ValueError("must have a name behind its slash")
    return path


APIName = Annotated[str, Field(max_length=42), DNS_LABEL, AfterValidator(_no_b_prefix)]
Endpoint = Annotated[URLPath, Field(max_length=1000), AfterValidator(_endpoint)]
NodeGroupName = Annotated[
    str, matches(r"[a-zA-Z0-9_-]+", "letters, digits, dashes and underscores")
]
Replicas = Annotated[int, Field(ge=0, le=MAX_INT32)]
Factor = Annotated[float, Field(ge=0, lt=1)]


class Pod(Section):
    """The containers of a replica, and how it takes requests."""

    port: Annotated[Port, BeforeValidator(_port_or_default)] = DEFAULT_PORT
    """Where requests are sent to; containers read it in CORTEX_PORT."""
    max_concurrency: Annotated[int, Field(ge=1, le=100)] = 1
    """Requests that are sent into the pod at the same time."""
    containers: Annotated[list[Container], Field(min_length=1)]
    """The containers; one of them listens on the port."""

    @model_validator(mode="after")
    def _distinct_names(self) -> Self:
        names = [each.name for each in self.containers]
        check_unique(names, "container", before=("containers",), after=("name",))
        return self

    @model_validator(mode="after")
    def _gpu_or_inf(self) -> Self:
        if any(each.compute.gpu for each in self.containers):
            for index, each in enumerate(self.containers):
                if each.compute.inf:
                    key = ("containers", index, "compute", "inf")
                    raise KeyProblem("cannot be in one pod with gpu", *key)
        return self


class Autoscaling(Section):
    """How many replicas there are: requests in flight divided by target_in_flight."""

    min_replicas: Replicas = 1
    """Never fewer; with 0 the last one goes, too, when nothing is in flight."""
    max_replicas: Annotated[int, Field(ge=1, le=MAX_INT32)] = 100
    """Never more."""
    init_replicas: Replicas = Field(default_factory=lambda data: data.get("min_replicas", 1))
    """When first deployed; default: min_replicas."""
    target_in_flight: Annotated[Annotated[float, Field(gt=0)] | None, NotNull()] = None
    """Requests per replica, queued ones included; default: max_concurrency."""
    window: Window = "60s"
    """For which the requests in flight are averaged: a multiple of 10s."""
    downscale_stabilization_period: Duration = "5m"
    """Never fewer replicas than the most that were recommended within it."""
    upscale_stabilization_period: Duration = "1m"
    """Never more replicas than the fewest that were recommended within it."""
    max_downscale_factor: Factor = 0.75
    """No step goes below this share of the replicas."""
    max_upscale_factor: Annotated[float, Field(gt=1)] = 1.5
    """No step goes above this multiple of the replicas."""
    downscale_tolerance: Factor = 0.05
    """A recommendation that is lower by less than this share is ignored."""
    upscale_tolerance: Annotated[float, Field(ge=0)] = 0.05
    """A recommendation that is higher by less than this share is ignored."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_replicas > self.max_replicas:
            limit = f"max_replicas, {self.max_replicas}, not {self.min_replicas}"
            raise KeyProblem(f"must be at most {limit}", "min_replicas")
        if not self.min_replicas <= self.init_replicas <= self.max_replicas:
            limits = f"min_replicas, {self.min_replicas}, to max_replicas, {self.max_replicas}"
            raise KeyProblem(f"must be {limits}, not {self.init_replicas}", "init_replicas")
        return self


class UpdateStrategy(Section):
    """How replicas are replaced when the API is deployed again."""

    max_surge: Share = "25%"
    """Replicas above the desired number meanwhile: a number or a percentage."""
    max_unavailable: Share = "25%"
    """Replicas below the desired number meanwhile: a number or a percentage."""

    @model_validator(mode="after")
    def _moves(self) -> Self:
        if parse_share(self.max_surge) == parse_share(self.max_unavailable) == 0:
            raise ValueError("max_surge and max_unavailable cannot both be 0")
        return self


class Networking(Section):
    """Where the API is found."""

    endpoint: Annotated[Endpoint | None, NotNull()] = None
    """The path; default: the API's name."""


class AsyncAPI(Section):
    """One API of ``cortex.yaml``."""

    name: APIName
    """Of the API, once in the cluster."""
    kind: Literal["AsyncAPI"]
    """What it is."""
    pod: Pod
    """What a replica is."""
    autoscaling: Autoscaling = Autoscaling()
    """How many replicas there are."""
    node_groups: Annotated[list[NodeGroupName], Field(min_length=1)] | None = None
    """Of the cluster, on which it may run; null: on all."""
    update_strategy: UpdateStrategy = UpdateStrategy()
    """How replicas are replaced."""
    networking: Networking = Networking()
    """Where it is found."""

    @model_validator(mode="before")
    @classmethod
    def _of_this_kind(cls, value: object) -> object:
        if isinstance(value, dict) and value.get("kind") in OTHER_KINDS:
            raise KeyProblem(
                f"{value['kind']} is valid on Cortex, but neither run nor checked here: "
                "only AsyncAPI is",
                "kind",
            )
        return value

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

    def with_defaults(self) -> AsyncAPI:
        """The same, with the defaults that depend on other sections written out."""
        target = self.autoscaling.target_in_flight or float(self.pod.max_concurrency)
        autoscaling = self.autoscaling.model_copy(update={"target_in_flight": target})
        networking = Networking(endpoint=self.endpoint)
        return self.model_copy(update={"autoscaling": autoscaling, "networking": networking})


def _distinct(apis: list[AsyncAPI]) -> list[AsyncAPI]:
    check_unique([api.name for api in apis], "API", after=("name",))
    endpoints = [f"/{api.endpoint}" for api in apis]
    check_unique(endpoints, "API", after=("networking", "endpoint"))
    return apis


AsyncAPIs: TypeAdapter[list[AsyncAPI]] = TypeAdapter(
    Annotated[list[AsyncAPI], Field(min_length=1), AfterValidator(_distinct)]
)
"""A whole ``cortex.yaml``."""
