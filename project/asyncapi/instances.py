"""Which EC2 instances Cortex takes, as far as their names tell.

Source: cortexlabs/cortex 0.42.1, pkg/lib/aws/ec2.go, elbv2.go and pkg/types/clusterconfig
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

INSTANCE = re.compile(r"(?P<family>[a-z]+(?:-[a-z]+)?)(?P<generation>\d+)(?P<extras>[a-z0-9-]*)"
                      r"\.(?P<size>[a-z0-9-]+)", re.ASCII)  # fmt: skip

NOT_SUPPORTED = {
    "mac": "mac",
    "f": "FPGA",
    "vt": "Alevo",
    "dl": "Gaudi",
    "trn": "Trainium",
}
"""By family."""

NO_NETWORK_LOAD_BALANCER = frozenset(
    ("c1", "cc1", "cc2", "cg1", "cg2", "cr1", "g1", "g2", "hi1", "hs1", "m1", "m2", "m3", "t1")
)
"""Old families that a network load balancer cannot reach."""


def _check(instance: str) -> str:
    match = INSTANCE.fullmatch(instance)
    if match is None:
        raise ValueError(f"must be an EC2 instance type, such as c5.large, not {instance!r}")
    if match["size"] in ("nano", "micro"):
        raise ValueError(f"{instance} is too small: Cortex takes no nano and no micro instances")
    if match["family"] in NOT_SUPPORTED:
        raise ValueError(
            f"{NOT_SUPPORTED[match['family']]} instances, {instance}, do not run Cortex"
        )
    if match["family"] in ("g", "p") and "a" in match["extras"]:
        raise ValueError(f"AMD GPU instances, {instance}, do not run Cortex")
    return instance


def _check_prometheus(instance: str) -> str:
    family = re.sub(r"\d.*", "", _check(instance))
    if family in ("g", "p", "inf"):
        raise ValueError(f"{instance} has an accelerator, which Prometheus has no use for")
    return instance


_SCHEMA = WithJsonSchema({"type": "string", "pattern": r"^[a-z-]+[0-9]+[a-z0-9-]*\.[a-z0-9-]+$"})

InstanceType = Annotated[str, AfterValidator(_check), _SCHEMA]
PrometheusInstanceType = Annotated[str, AfterValidator(_check_prometheus), _SCHEMA]


def reached_by_network_load_balancer(instance: str) -> bool:
    """Whether a load balancer of the type nlb can send requests to it."""
    return instance.partition(".")[0] not in NO_NETWORK_LOAD_BALANCER
