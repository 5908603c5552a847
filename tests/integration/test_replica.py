"""The container's process: restarts, grace, and its port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from project.asyncapi import replica
from project.asyncapi.replica import PortInUse, Replica, check_port
from tests.helpers import DEADLINE, eventually, free_port

STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"


def python(code: str) -> Replica:
    """A container that runs ``code``, then writes its process id to a file and waits."""
    script = f"{code}\nopen('pid', 'a').write(str(__import__('os').getpid()) + '\\n')"
    script += "\n__import__('time').sleep(60)"
    return Replica([sys.executable, "-c", script], {})


def pids(tmp_path: Path) -> list[int]:
    """The processes that have started so far."""
    path = tmp_path / "pid"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths are the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replica, "BACK_OFF_SECONDS", (0.01, 0.02))


def test_restarted_when_killed(tmp_path: Path) -> None:
    """A container that dies is started again, more than once."""

    async def run() -> None:
        it = python("")
        running = asyncio.create_task(it.run())
        for _ in range(3):
            before = len(pids(tmp_path))
            await eventually(lambda: len(pids(tmp_path)) > before)  # noqa: B023  (awaited here)
            os.kill(pids(tmp_path)[-1], signal.SIGKILL)
        await eventually(lambda: len(pids(tmp_path)) == 4)
        await it.stop()
        await running

    asyncio.run(run())


def test_stopped_between_restarts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopping does not wait for the back-off to end."""
    monkeypatch.setattr(replica, "BACK_OFF_SECONDS", (3600.0,))

    async def run() -> None:
        it = Replica([sys.executable, "-c", "open('pid', 'w').write('0')"], {})
        running = asyncio.create_task(it.run())
        await eventually(lambda: pids(tmp_path) == [0])
        await it.stop()
        await asyncio.wait_for(running, 60)

    asyncio.run(run())


def test_killed_after_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that ignores SIGTERM is killed when its grace has passed."""
    monkeypatch.setattr(replica, "GRACE_SECONDS", 0.1)

    async def run() -> None:
        it = python(STUBBORN)
        running = asyncio.create_task(it.run())
        await eventually(lambda: len(pids(tmp_path)) == 1)
        await it.stop()
        await running
        with pytest.raises(ProcessLookupError):
            os.kill(pids(tmp_path)[0], 0)

    asyncio.run(run())


def test_stopped_while_being_started() -> None:
    """A stop that comes before the process is there ends it as well."""

    async def run() -> None:
        it = python("")
        running = asyncio.create_task(it.run())
        await asyncio.sleep(0)
        await it.stop()
        await asyncio.wait_for(running, DEADLINE)

    asyncio.run(run())


def test_environment_and_port_in_command(tmp_path: Path) -> None:
    """The environment of cortex.yaml reaches the process, and $(NAME) its arguments."""

    async def run() -> None:
        code = "import os, sys; open('seen', 'w').write(os.environ['A'] + sys.argv[1] + '\\n')"
        it = Replica([sys.executable, "-c", code, "$(CORTEX_PORT)"], {"A": "1", "CORTEX_PORT": "2"})
        running = asyncio.create_task(it.run())
        seen = tmp_path / "seen"
        await eventually(lambda: seen.exists() and seen.read_text() == "12\n")
        await it.stop()
        await running

    asyncio.run(run())


def test_taken_port_is_named() -> None:
    """A stranger on the container's port is noticed before anything is sent to it."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} is in use"):
            check_port(port)
    check_port(free_port())
