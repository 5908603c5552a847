"""How many cores this process may use: its affinity and its container's quota, not the host's."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def available_cpus(cgroup: Path = CGROUP) -> int:
    """Cores to compute on: at least 1.

    A quota of one and a half cores counts as one: two threads would be throttled in the middle of
    a batch, which costs more than the half core brings.

    Source: Linux, Documentation/admin-guide/cgroup-v2.rst (``cpu.max``) and cgroup v1's
    ``cpu.cfs_quota_us``, both in microseconds.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    quota = _quota_v2(cgroup) or _quota_v1(cgroup)
    return cores if quota is None else max(1, min(cores, math.floor(quota)))


def _quota_v2(cgroup: Path) -> float | None:
    words = _read(cgroup / "cpu.max").split()
    if len(words) != 2 or words[0] == "max":
        return None
    return int(words[0]) / int(words[1])


def _quota_v1(cgroup: Path) -> float | None:
    quota, period = _read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")
    if not quota or not period or int(quota) <= 0:
        return None
    return int(quota) / int(period)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
