"""The disk: what an acknowledgement means, and what happens when there is no room."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.e2e.kills import ECHO
from tests.helpers import RuntimeProcess, free_port, submit, wait_until

# A file system of its own, which nobody else sees, without being root.
SMALL_DISK = (
    "unshare", "--user", "--map-root-user", "--mount",
    "sh", "-c", 'mkdir small && mount -t tmpfs -o size=64m small small && exec "$@"', "sh",
)  # fmt: skip
LARGE = {"text": "x" * 400_000}

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
    limits = ("--storage", "small", "--min-free-bytes", "40000000")
    runtime = start_runtime(*ECHO, *limits, inside=SMALL_DISK)
    url = runtime.url()
    with httpx.Client() as client:
        accepted: list[str] = []
        while (answer := client.post(url, json=LARGE)).status_code == 200:
            accepted.append(answer.json()["id"])

        assert (answer.status_code, answer.headers["retry-after"]) == (507, "5")
        needed = 40_000_000 + 2 * len(answer.request.content)
        assert re.fullmatch(rf"error: \d+ bytes are free, {needed} must be", answer.text)
        assert len(accepted) > 20
        statuses = [client.get(f"{url}/{name}").json()["status"] for name in accepted]
        assert statuses == ["in_progress"] * 4 + ["in_queue"] * (len(accepted) - 4)

        (tmp_path / "hold").unlink()
        for name in accepted:
            status = f"{url}/{name}"
            answer = wait_until(partial(completed, client, status))
            assert answer.json()["result"] == LARGE
    assert runtime.interrupt() == 0


TRACE = (
    "strace", "-D", "-f", "-y", "-s", "300", "-o", "trace.txt",
    "-e", "trace=pwrite64,fdatasync,fsync,write,writev,sendto,sendmsg",
)  # fmt: skip
ANSWER = '{\\"id\\":'


def can_trace(folder: Path) -> bool:
    """Whether this machine lets us."""
    if shutil.which("strace") is None:
        return False
    return subprocess.run([*TRACE, "true"], cwd=folder, check=False).returncode == 0


def test_acknowledged_after_the_sync(start_runtime: Start, tmp_path: Path) -> None:
    """An id is sent when the log with its request is on the disk: no power failure loses it."""
    if not can_trace(tmp_path):
        pytest.skip("needs strace")
    elsewhere = ("--container-url", "http://127.0.0.1:1")  # nothing is pulled
    port = free_port()
    runtime = start_runtime(*elsewhere, "--port", str(port), inside=TRACE)
    url = f"http://127.0.0.1:{port}/sentiment"
    wait_until(lambda: is_listening(port))
    ids = [submit(url, {"number": number}) for number in range(5)]
    assert runtime.interrupt() == 0
    trace = tmp_path / "trace.txt"
    wait_until(lambda: trace.read_text(errors="replace").count(ANSWER) == len(ids))

    unsynced, answered = True, []
    for line in trace.read_text(errors="replace").splitlines():
        if "pwrite64(" in line and "-wal>" in line:
            unsynced = True
        elif ("fdatasync(" in line and "-wal>" in line) or "fdatasync resumed" in line:
            unsynced = not line.endswith("= 0")
        elif ANSWER in line:
            assert not unsynced, line
            answered.append(line)
    assert [name in line for name, line in zip(ids, answered, strict=True)] == [True] * 5


def is_listening(port: int) -> bool:
    """Whether somebody takes connections there."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
