"""The configuration of Cortex's clusters: every key of ``cluster.yaml``, default and limit.

What only an AWS account can tell is not checked: quotas, prices, which instances a region has, and
whether policies, certificates and subnets exist.

Source: https://docs.cortex.dev/clusters/management/create and, in cortexlabs/cortex 0.42.1,
pkg/types/clusterconfig/cluster_config.go
"""

from __future__ import annotations

import re
from ipaddress import ip_interface
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from project.asyncapi.instances import PrometheusInstanceType, reached_by_network_load_balancer
from project.asyncapi.node_groups import NodeGroup
from project.asyncapi.section import (
    Image,
    Key,
    KeyProblem,
    NotNull,
    Section,
    check_unique,
    matches,
)

VERSION = "0.42.1"
"""Of Cortex, and of its own images."""

OWN_REGISTRIES = tuple(
    f"{registry}{owner}/"
    for registry in ("quay.io/", "docker.io/", "")
    for owner in ("cortexlabs", "cortexlabsdev")
)

Region = Literal[
    "af-south-1", "ap-east-1", "ap-northeast-1", "ap-northeast-2", "ap-northeast-3", "ap-south-1",
    "ap-southeast-1", "ap-southeast-2", "ca-central-1", "eu-central-1", "eu-north-1",
    "eu-south-1", "eu-west-1", "eu-west-2", "eu-west-3", "me-south-1", "sa-east-1", "us-east-1",
    "us-east-2", "us-gov-east-1", "us-gov-west-1", "us-west-1", "us-west-2",
]  # fmt: skip
"""The regions whose instances Cortex 0.42.1 knows."""

MAX_NODE_GROUPS = 100
MAX_FIRST_INSTANCES = 200
"""Instances that ``cluster up`` may start with, of all node groups together."""

TAG_PREFIXES = ("kubernetes.io/", "k8s.io/", "eksctl.", "alpha.eksctl.", "beta.eksctl.", "aws:")
CLUSTER_NAME_TAG = "cortex.dev/cluster-name"
S3_FULL_ACCESS = "arn:aws:iam::aws:policy/AmazonS3FullAccess"

TAG_TEXT = matches(
    r"[\w\-.:/+@](?:[\s\w\-.:/+@]*[\w\-.:/+@])?",
    "letters, digits and _ - . : / + @, with spaces between them only",
)


def _no_reserved_prefix(text: str) -> str:
    if text.lower().startswith(TAG_PREFIXES):
        raise ValueError(f"must not begin with one of {', '.join(TAG_PREFIXES)}")
    return text


def _cidr(text: str) -> str:
    try:
        ip_interface(text)
        length = text.partition("/")[2]
    except ValueError:
        length = ""
    if not length.isdecimal():  # Python also takes an address alone, and 10.0.0.0/255.0.0.0
        raise ValueError(f"must be a CIDR block, such as 203.0.113.7/32, not {text!r}")
    return text


def _vpc_cidr(text: str) -> str:
    bits = ip_interface(_cidr(text)).network.prefixlen
    if not 16 <= bits <= 24:
        raise ValueError(f"must be a block from /16 to /24, not /{bits}")
    return text


def _image_version(image: str) -> str:
    """Cortex's own images are of Cortex's version; a missing tag means latest."""
    name, _, tag = image.rpartition(":")
    if image.startswith(OWN_REGISTRIES) and not (name and tag.startswith(VERSION)):
        raise ValueError(f"must have the tag {VERSION}, Cortex's version: {image}")
    return image


ClusterName = Annotated[
    str,
    Field(min_length=3, max_length=54),
    matches(
        r"[a-z0-9]+(?:-[a-z0-9]+)*",
        "lower-case letters and digits, with single dashes between them",
    ),
]
TagKey = Annotated[str, Field(max_length=127), TAG_TEXT, AfterValidator(_no_reserved_prefix)]
TagValue = Annotated[str, Field(max_length=255), TAG_TEXT, AfterValidator(_no_reserved_prefix)]
Cidr = Annotated[str, AfterValidator(_cidr)]
VPCCidr = Annotated[str, AfterValidator(_vpc_cidr)]
Cidrs = Annotated[list[Cidr], Field(min_length=1)]
CortexImage = Annotated[Image, AfterValidator(_image_version)]
PolicyARN = Annotated[
    str,
    matches(
        r"arn:aws[a-z-]*:iam::(?:aws|\d{12}):policy/[\w+=,.@/-]+",
        "the ARN of an IAM policy, arn:aws:iam::<account>:policy/<name>",
    ),
]
CertificateARN = Annotated[
    str,
    matches(
        r"arn:aws[a-z-]*:acm:[a-z0-9-]+:\d{12}:certificate/[\w-]+",
        "the ARN of a certificate, arn:aws:acm:<region>:<account>:certificate/<id>",
    ),
]
Visibility = Literal["public", "private"]
NATGateway = Literal["none", "single", "highly_available"]
Scheme = Literal["internet-facing", "internal"]


def _nat_gateway(data: dict[str, Any]) -> NATGateway:
    private = data.get("subnet_visibility") == "private" and not data.get("subnets")
    return "single" if private else "none"


def _own(name: str) -> str:
    return f"quay.io/cortexlabs/{name}:{VERSION}"


class Subnet(Section):
    """A subnet that is there already."""

    availability_zone: Annotated[str, Field(min_length=1)]
    """Of the subnet, once in the list."""
    subnet_id: Annotated[str, Field(min_length=1)]
    """Of the subnet."""


class Images(Section):
    """What Cortex itself runs; for a registry of one's own."""

    image_manager: CortexImage = _own("manager")
    image_operator: CortexImage = _own("operator")
    image_controller_manager: CortexImage = _own("controller-manager")
    image_autoscaler: CortexImage = _own("autoscaler")
    image_proxy: CortexImage = _own("proxy")
    image_async_gateway: CortexImage = _own("async-gateway")
    image_activator: CortexImage = _own("activator")
    image_enqueuer: CortexImage = _own("enqueuer")
    image_dequeuer: CortexImage = _own("dequeuer")
    image_cluster_autoscaler: CortexImage = _own("cluster-autoscaler")
    image_metrics_server: CortexImage = _own("metrics-server")
    image_nvidia_device_plugin: CortexImage = _own("nvidia-device-plugin")
    image_neuron_device_plugin: CortexImage = _own("neuron-device-plugin")
    image_neuron_scheduler: CortexImage = _own("neuron-scheduler")
    image_fluent_bit: CortexImage = _own("fluent-bit")
    image_istio_proxy: CortexImage = _own("istio-proxy")
    image_istio_pilot: CortexImage = _own("istio-pilot")
    image_prometheus: CortexImage = _own("prometheus")
    image_prometheus_config_reloader: CortexImage = _own("prometheus-config-reloader")
    image_prometheus_operator: CortexImage = _own("prometheus-operator")
    image_prometheus_statsd_exporter: CortexImage = _own("prometheus-statsd-exporter")
    image_prometheus_dcgm_exporter: CortexImage = _own("prometheus-dcgm-exporter")
    image_prometheus_kube_state_metrics: CortexImage = _own("prometheus-kube-state-metrics")
    image_prometheus_node_exporter: CortexImage = _own("prometheus-node-exporter")
    image_kube_rbac_proxy: CortexImage = _own("kube-rbac-proxy")
    image_grafana: CortexImage = _own("grafana")
    image_event_exporter: CortexImage = _own("event-exporter")
    image_kubexit: CortexImage = _own("kubexit")


class _Network(Section):
    """Where the cluster is, and who reaches it."""

    cluster_name: ClusterName = "cortex"
    """Of the cluster, once in an account and region."""
    region: Region
    """Of AWS."""
    availability_zones: list[str] | None = None
    """Of the region, two or more; null: three that have the instances."""
    subnet_visibility: Visibility = "public"
    """Whether instances have public addresses."""
    subnets: Annotated[list[Subnet], Field(min_length=2)] | None = None
    """Of a VPC that is there already; null: a VPC of the cluster's own."""
    nat_gateway: NATGateway = Field(default_factory=_nat_gateway)
    """Through which private instances reach the internet; highly_available: one in each zone."""
    api_load_balancer_type: Literal["nlb", "elb"] = "nlb"
    """Network or classic load balancer."""
    api_load_balancer_scheme: Scheme = "internet-facing"
    """Whether APIs are reached from outside the VPC."""
    operator_load_balancer_scheme: Scheme = "internet-facing"
    """Whether the cortex command reaches the cluster from outside the VPC."""
    api_load_balancer_cidr_white_list: Annotated[Cidrs | None, NotNull()] = None
    """Addresses that may call APIs; default: all."""
    operator_load_balancer_cidr_white_list: Annotated[Cidrs | None, NotNull()] = None
    """Addresses from which the cortex command may be used; default: all."""
    vpc_cidr: Annotated[VPCCidr | None, NotNull()] = None
    """Of the cluster's own VPC; default: eksctl's, 192.168.0.0/16."""
    ssl_certificate_arn: CertificateARN | None = None
    """Of the certificate for HTTPS under a domain of one's own."""

    @field_validator("availability_zones", mode="after")
    @classmethod
    def _not_one_zone(cls, zones: list[str] | None) -> list[str] | None:
        if zones is not None and len(zones) == 1:
            raise ValueError("must hold two zones or more, or none for the default")
        check_unique(zones or ())
        return zones

    @model_validator(mode="after")
    def _zones_of_region(self) -> Self:
        zone = re.compile(re.escape(self.region) + "(?:-[a-z0-9-]+)?[a-z]")
        named: dict[Key, str] = {
            ("availability_zones", index): name
            for index, name in enumerate(self.availability_zones or ())
        } | {
            ("subnets", index, "availability_zone"): subnet.availability_zone
            for index, subnet in enumerate(self.subnets or ())
        }
        for key, name in named.items():
            if not zone.fullmatch(name):
                raise KeyProblem(f"{name} is no availability zone of {self.region}", *key)
        return self

    @model_validator(mode="after")
    def _subnets_or_own_vpc(self) -> Self:
        zones = [subnet.availability_zone for subnet in self.subnets or ()]
        check_unique(zones, "subnet", before=("subnets",), after=("availability_zone",))
        if zones and self.availability_zones:
            raise KeyProblem("cannot be given beside availability_zones", "subnets")
        if zones and self.nat_gateway != "none":
            raise KeyProblem("must be none where subnets are given", "nat_gateway")
        if not zones and self.subnet_visibility == "private" and self.nat_gateway == "none":
            raise KeyProblem(
                "must be single or highly_available for private subnets", "nat_gateway"
            )
        return self

    @model_validator(mode="after")
    def _certificate_of_region(self) -> Self:
        arn = self.ssl_certificate_arn
        if arn is not None and arn.split(":")[3] != self.region:
            raise KeyProblem(f"must be a certificate of {self.region}", "ssl_certificate_arn")
        return self


class _Resources(_Network):
    """What the cluster is made of, and what it may do."""

    node_groups: Annotated[list[NodeGroup], Field(max_length=MAX_NODE_GROUPS)] | None = None
    """The instances on which APIs run."""
    tags: dict[TagKey, TagValue] | None = None
    """Of all that is created in AWS."""
    iam_policy_arns: list[PolicyARN] | None = Field(default_factory=lambda: [S3_FULL_ACCESS])
    """What APIs may do in AWS, beside Cortex's own bucket and queues."""
    prometheus_instance_type: PrometheusInstanceType = "t3.medium"
    """Of Cortex's Prometheus; one with more memory from 300 nodes or pods."""
    telemetry: bool = True
    """Whether Cortex reports to its authors."""

    @model_validator(mode="after")
    def _groups_together(self) -> Self:
        groups = self.node_groups or []
        names = [group.name for group in groups]
        check_unique(names, "node group", before=("node_groups",), after=("name",))
        if (total := sum(group.min_instances for group in groups)) > MAX_FIRST_INSTANCES:
            limit = f"at most {MAX_FIRST_INSTANCES} in all groups together, not {total}"
            raise KeyProblem(f"min_instances must be {limit}", "node_groups")
        return self

    @model_validator(mode="after")
    def _reached_by_load_balancer(self) -> Self:
        if self.api_load_balancer_type == "elb":
            return self
        types: dict[Key, str] = {
            ("node_groups", index, "instance_type"): group.instance_type
            for index, group in enumerate(self.node_groups or ())
        } | {("prometheus_instance_type",): self.prometheus_instance_type}
        for key, name in types.items():
            if not reached_by_network_load_balancer(name):
                raise KeyProblem(f"{name} cannot be reached by a load balancer of type nlb", *key)
        return self

    @model_validator(mode="after")
    def _cortex_tags(self) -> Self:
        for key, value in (self.tags or {}).items():
            if key.startswith("cortex.dev/") and (key, value) != (
                CLUSTER_NAME_TAG,
                self.cluster_name,
            ):
                raise KeyProblem("cortex.dev/ begins the names of Cortex's own tags", "tags", key)
        return self


class Cluster(Images, _Resources):
    """A whole ``cluster.yaml``."""

    def with_defaults(self) -> Cluster:
        """The same, with the defaults that depend on other values written out."""
        groups = [group.with_defaults() for group in self.node_groups or ()]
        return self.model_copy(update={"node_groups": groups})
