"""The disk: what an acknowledgement means, and what happens when there is no room."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.kills import ECHO
from tests.helpers import RuntimeProcess, wait_until

# A file system of its own, which nobody else sees, without being root.
SMALL_DISK = (
    "unshare", "--user", "--map-root-user", "--mount",
    "sh", "-c", 'mkdir small && mount -t tmpfs -o size=24m small small && exec "$@"', "sh",
)  # fmt: skip
LARGE = {"text": "x" * 200_000}

Start = Callable[..., RuntimeProcess]


def can_mount(folder: Path) -> bool:
    """Whether this machine lets us."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*SMALL_DISK, "true"], cwd=folder, check=False).returncode == 0


def completed(client: httpx.Client, url: str) -> httpx.Response | None:
    """The answer of a poll, if the request is completed."""
    answer = client.get(url)
    return answer if answer.json()["status"] == "completed" else None


def test_full_disk(start_runtime: Start, tmp_path: Path) -> None:
    """507 for new work, polls go on, and all that was acknowledged completes."""
    if not can_mount(tmp_path):
        pytest.skip("needs user namespaces")
    (tmp_path / "small").rmdir()
    (tmp_path / "hold").touch()
    limits = ("--storage", "small", "--min-free-bytes", "8000000")
    runtime = start_runtime(*ECHO, *limits, inside=SMALL_DISK)
    url = runtime.url()
    with httpx.Client() as client:
        accepted: list[str] = []
        while (answer := client.post(url, json=LARGE)).status_code == 200:
            accepted.append(answer.json()["id"])

        assert (answer.status_code, answer.headers["retry-after"]) == (507, "5")
        assert re.fullmatch(r"error: \d+ bytes are free, 8000000 must be", answer.text)
        assert len(accepted) > 20
        statuses = [client.get(f"{url}/{name}").json()["status"] for name in accepted]
        assert statuses == ["in_progress"] * 4 + ["in_queue"] * (len(accepted) - 4)

        (tmp_path / "hold").unlink()
        for name in accepted:
            status = f"{url}/{name}"
            answer = wait_until(lambda status=status: completed(client, status))
            assert answer.json()["result"] == LARGE
    assert runtime.interrupt() == 0
