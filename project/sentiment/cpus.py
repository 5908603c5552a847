"""How many cores this process may use: its affinity and its container's quota, not the host's."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

CGROUP = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus(cgroup: Path = CGROUP, membership: Path = MEMBERSHIP) -> int:
    """Cores to compute on: at least 1.

    A quota of one and a half cores counts as one: two threads would be throttled in the middle of
    a batch, which costs more than the half core brings.

    Args:
        cgroup: where the groups are mounted.
        membership: names the group of this process, below that.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return max(1, min(cores, math.floor(min(_quotas(cgroup, membership), default=cores))))


def _quotas(cgroup: Path, membership: Path) -> Iterator[float]:
    """Of every group that this process is in, in cores: each bounds those below it.

    In a container with a namespace of its own the group is the root. Under systemd's ``CPUQuota``,
    or with ``docker run --cgroupns=host``, it is a folder below.

    Sources: cgroups(7) for the membership; Linux, Documentation/admin-guide/cgroup-v2.rst
    (``cpu.max``) and cgroup v1's ``cpu.cfs_quota_us``, both in microseconds.
    """
    v1 = v2 = "/"
    for line in _read(membership).splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            v2 = path
        elif "cpu" in controllers.split(","):
            v1 = path
    for group in _upwards(cgroup, v2):
        quota, _, period = _read(group / "cpu.max").partition(" ")
        if period and quota != "max":
            yield int(quota) / int(period)
    for group in _upwards(cgroup / "cpu", v1):
        quota, period = _read(group / "cpu.cfs_quota_us"), _read(group / "cpu.cfs_period_us")
        if quota and period and int(quota) > 0:
            yield int(quota) / int(period)


def _upwards(root: Path, path: str) -> list[Path]:
    """The folder of a group, and of all that it is in, up to ``root``."""
    group = PurePosixPath(path.lstrip("/"))
    if ".." in group.parts:  # outside what is mounted
        return [root]
    return [root / each for each in (group, *group.parents)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape").strip()
    except OSError:
        return ""
