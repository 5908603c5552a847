"""The node groups of ``cluster.yaml``: instances of one kind, bought for good or on the spot."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from project.asyncapi.instances import InstanceType
from project.asyncapi.section import Count, KeyProblem, Section, check_unique, matches

MAX_INSTANCE_POOLS = 20

IOPS = {"io1": (100, 64_000, 50), "gp3": (3_000, 16_000, 500)}
"""By volume type: the fewest, the most, and the most for each GB of the volume."""

GP3_IOPS, GP3_THROUGHPUT = 3_000, 125
MIN_IOPS_PER_THROUGHPUT = 4

NodeGroupName = Annotated[
    str,
    Field(max_length=26),
    matches(
        r"[a-zA-Z0-9-]*[a-zA-Z0-9]",
        "letters, digits and dashes, without one at the end",
    ),
]
Percentage = Annotated[int, Field(ge=0, le=100)]


class SpotConfig(Section):
    """How spot instances are bought."""

    instance_distribution: Annotated[list[InstanceType], Field(min_length=1)] | None = None
    """Further instance types, none with less memory or cores than the group's own."""
    on_demand_base_capacity: Count | None = None
    """Instances that are bought for good, before any other; null: 0."""
    on_demand_percentage_above_base_capacity: Percentage | None = None
    """Of the instances above these that are bought for good; null: 0."""
    max_price: Annotated[float, Field(gt=0)] | None = None
    """USD an hour; null: the on-demand price of the group's own instance type."""
    instance_pools: Annotated[int, Field(ge=1, le=MAX_INSTANCE_POOLS)] | None = None
    """Of spot instances in each zone; null: one for each instance type."""

    @field_validator("instance_distribution", mode="after")
    @classmethod
    def _distinct(cls, types: list[str] | None) -> list[str] | None:
        check_unique(types or ())
        return types


class NodeGroup(Section):
    """Instances of one kind."""

    name: NodeGroupName
    """Of the group, once in the cluster."""
    instance_type: InstanceType
    """Of each instance."""
    min_instances: Count = 1
    """Never fewer."""
    max_instances: Annotated[int, Field(ge=1)] = 5
    """Never more; 0 only once the cluster runs."""
    priority: Annotated[int, Field(ge=1, le=100)] = 1
    """The group with the highest is filled first."""
    instance_volume_size: Annotated[int, Field(ge=20, le=16_384)] = 50
    """GB of disk."""
    instance_volume_type: Literal["gp2", "gp3", "io1", "sc1", "st1"] = "gp3"
    """Of the disk."""
    instance_volume_iops: int | None = None
    """Of io1 and gp3."""
    instance_volume_throughput: Annotated[int, Field(ge=125, le=1_000)] | None = None
    """MB a second, of gp3."""
    spot: bool = False
    """Whether the instances are bought on the spot: cheaper, and taken back when AWS needs them."""
    spot_config: SpotConfig | None = None
    """How they are bought."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_instances > self.max_instances:
            limit = f"max_instances, {self.max_instances}, not {self.min_instances}"
            raise KeyProblem(f"must be at most {limit}", "min_instances")
        base = (self.spot_config or SpotConfig()).on_demand_base_capacity or 0
        if base > self.max_instances:
            limit = f"max_instances, {self.max_instances}, not {base}"
            raise KeyProblem(f"must be at most {limit}", "spot_config", "on_demand_base_capacity")
        return self

    @model_validator(mode="after")
    def _spot(self) -> Self:
        if self.spot_config is not None and not self.spot:
            raise KeyProblem("is of use with spot: true only", "spot_config")
        return self

    @model_validator(mode="after")
    def _volume(self) -> Self:
        kind, iops = self.instance_volume_type, self.instance_volume_iops
        throughput = self.instance_volume_throughput
        if iops is not None and kind not in IOPS:
            raise KeyProblem(f"is for io1 and gp3 volumes, not {kind}", "instance_volume_iops")
        if throughput is not None and kind != "gp3":
            raise KeyProblem(f"is for gp3 volumes, not {kind}", "instance_volume_throughput")
        if kind == "gp3" and (iops is None) != (throughput is None):
            missing = "instance_volume_iops" if iops is None else "instance_volume_throughput"
            given = "instance_volume_iops" if iops is not None else "instance_volume_throughput"
            raise KeyProblem(f"must be given together with {missing}", given)
        return self

    @model_validator(mode="after")
    def _iops(self) -> Self:
        iops = self.instance_volume_iops
        if iops is None:
            return self
        least, most, per_size = IOPS[self.instance_volume_type]
        most = min(most, per_size * self.instance_volume_size)
        if self.instance_volume_throughput is not None:
            least = max(least, MIN_IOPS_PER_THROUGHPUT * self.instance_volume_throughput)
        if not least <= iops <= most:
            volume = f"{self.instance_volume_type} of {self.instance_volume_size} GB"
            raise KeyProblem(
                f"must be {least} to {most} for {volume}, not {iops}", "instance_volume_iops"
            )
        return self

    def with_defaults(self) -> NodeGroup:
        """The same, with the defaults that depend on other values written out."""
        filled: dict[str, object] = {}
        if self.instance_volume_iops is None and self.instance_volume_type == "gp3":
            filled = {
                "instance_volume_iops": GP3_IOPS,
                "instance_volume_throughput": GP3_THROUGHPUT,
            }
        if self.instance_volume_iops is None and self.instance_volume_type == "io1":
            filled = {"instance_volume_iops": min(50 * self.instance_volume_size, 3_000)}
        if self.spot:
            filled["spot_config"] = self._spot_with_defaults()
        return self.model_copy(update=filled)

    def _spot_with_defaults(self) -> SpotConfig:
        given = self.spot_config or SpotConfig()
        others = given.instance_distribution or []
        types = [self.instance_type, *(each for each in others if each != self.instance_type)]
        return given.model_copy(
            update={
                "instance_distribution": types,
                "on_demand_base_capacity": given.on_demand_base_capacity or 0,
                "on_demand_percentage_above_base_capacity": (
                    given.on_demand_percentage_above_base_capacity or 0
                ),
                "instance_pools": given.instance_pools or min(len(types), MAX_INSTANCE_POOLS),
            }
        )
