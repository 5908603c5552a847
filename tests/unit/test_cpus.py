"""How many threads to compute on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from project.sentiment.cpus import available_cpus


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host lets this process use eight cores."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ],
)
def test_quota_counts(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    """The quota of either cgroup version bounds the cores, at least one is left."""
    write(tmp_path, files)

    assert available_cpus(tmp_path, tmp_path / "none") == cpus


@pytest.mark.parametrize(
    ("membership", "files", "cpus"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/system.slice/a.service", {"system.slice/a.service/cpu.max": "200000 100000"}, 2),
        (
            "0::/a/b",
            {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "5 1"},
            3,
        ),
        ("0::/a/b", {"a/b/cpu.max": "600000 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b", {"a/c/cpu.max": "100000 100000", "a/b/cpu.max": "300000 100000"}, 3),
        ("0::/gone (deleted)", {"cpu.max": "200000 100000"}, 2),
        ("0::/../../a", {"cpu.max": "200000 100000"}, 2),
        (
            "12:pids:/p\n4:cpu,cpuacct:/docker/a:b\n0::/c",
            {
                "cpu/docker/a:b/cpu.cfs_quota_us": "300000",
                "cpu/docker/a:b/cpu.cfs_period_us": "100000",
                "cpu/docker/cpu.cfs_quota_us": "-1",
                "cpu/docker/cpu.cfs_period_us": "100000",
                "cpu/p/cpu.cfs_quota_us": "100000",
                "cpu/p/cpu.cfs_period_us": "100000",
            },
            3,
        ),
    ],
    ids=["root", "systemd", "above", "below", "beside", "gone", "outside", "v1"],
)
def test_quota_of_the_group_counts(
    tmp_path: Path, membership: str, files: dict[str, str], cpus: int
) -> None:
    """The smallest quota on the way from the process's own group to the root is the bound."""
    write(tmp_path / "cgroup", files)
    (tmp_path / "membership").write_text(membership + "\n", encoding="ascii")

    assert available_cpus(tmp_path / "cgroup", tmp_path / "membership") == cpus


def write(folder: Path, files: dict[str, str]) -> None:
    """``files`` below ``folder``, by their paths."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="ascii")


def test_affinity_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is pinned to one core has one."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)

    assert available_cpus(tmp_path, tmp_path / "none") == 1
