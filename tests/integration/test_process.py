"""The container's process: restarts, what is done before a stop, grace, and its port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from project.asyncapi import process
from project.asyncapi.checks import Target
from project.asyncapi.container_spec import Hook, Probe
from project.asyncapi.probes import watch_liveness
from project.asyncapi.process import ContainerProcess, PortInUse, check_port
from tests.helpers import DEADLINE, eventually, free_port

STUBBORN = "import signal, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)"

SERVER = """
import http.server, os, signal, sys

def note(event):
    with open("events", "a") as events:
        events.write(event + "\\n")

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        note("GET " + self.path)
        self.send_response(200)
        self.end_headers()

def stop(*_):
    note("SIGTERM")
    sys.exit()

signal.signal(signal.SIGTERM, stop)
server = http.server.HTTPServer(("127.0.0.1", int(os.environ["CORTEX_PORT"])), Handler)
note("start")
server.serve_forever()
"""


def server(pre_stop: dict[str, Any]) -> tuple[ContainerProcess, Target]:
    """A container that writes what happens to it to a file, and where it is."""
    port = free_port()
    target = Target("127.0.0.1", {8080: port}, {})
    env = {"CORTEX_PORT": str(port)}
    hook = Hook.model_validate(pre_stop)
    return ContainerProcess([sys.executable, "-c", SERVER], env, hook, target), target


def events(tmp_path: Path) -> list[str]:
    """What has happened so far."""
    path = tmp_path / "events"
    return path.read_text().splitlines() if path.exists() else []


def python(code: str) -> ContainerProcess:
    """A container that runs ``code``, then writes its process id to a file and waits."""
    script = f"{code}\nopen('pid', 'a').write(str(__import__('os').getpid()) + '\\n')"
    script += "\n__import__('time').sleep(60)"
    return ContainerProcess([sys.executable, "-c", script], {})


def pids(tmp_path: Path) -> list[int]:
    """The processes that have started so far."""
    path = tmp_path / "pid"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Relative paths are the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", (0.01, 0.02))


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
    monkeypatch.setattr(process, "BACK_OFF_SECONDS", (3600.0,))

    async def run() -> None:
        it = ContainerProcess([sys.executable, "-c", "open('pid', 'w').write('0')"], {})
        running = asyncio.create_task(it.run())
        await eventually(lambda: pids(tmp_path) == [0])
        await it.stop()
        await asyncio.wait_for(running, 60)

    asyncio.run(run())


def test_killed_after_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that ignores SIGTERM is killed when its grace has passed."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.1)

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


def test_generation_counts_processes(tmp_path: Path) -> None:
    """A restart ends the process, the next one is another generation, and none runs between."""

    async def run() -> int | None:
        it = python("")
        await it.restart()  # nothing runs: nothing to do
        running = asyncio.create_task(it.run())
        for generation in (1, 2):
            await eventually(lambda: len(pids(tmp_path)) == generation)  # noqa: B023
            assert it.generation == generation
            await it.restart()
        await eventually(lambda: len(pids(tmp_path)) == 3)
        await it.stop()
        await running
        return it.generation

    assert asyncio.run(run()) is None


@pytest.mark.parametrize(
    ("pre_stop", "event"),
    [
        ({"http_get": {"port": 8080, "path": "/bye"}}, "GET /bye"),
        ({"exec": {"command": ["sh", "-c", "echo bye >> events"]}}, "bye"),
    ],
)
def test_pre_stop_comes_before_sigterm(
    pre_stop: dict[str, Any], event: str, tmp_path: Path
) -> None:
    """The hook has ended when the container is told to stop."""

    async def run() -> None:
        it, _ = server(pre_stop)
        running = asyncio.create_task(it.run())
        await eventually(lambda: events(tmp_path) == ["start"])
        await it.stop()
        await running
        assert events(tmp_path) == ["start", event, "SIGTERM"]

    asyncio.run(run())


def test_pre_stop_that_fails(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is told, and the container is stopped all the same."""

    async def run() -> None:
        it, _ = server({"exec": {"command": ["false"]}})
        running = asyncio.create_task(it.run())
        await eventually(lambda: events(tmp_path) == ["start"])
        await it.stop()
        await running
        assert events(tmp_path) == ["start", "SIGTERM"]

    asyncio.run(run())
    assert "pre_stop failed" in caplog.text


def test_killed_during_pre_stop(tmp_path: Path) -> None:
    """A hook of a container that is no longer there is not waited for, and is ended."""
    hook = {"exec": {"command": ["sh", "-c", "echo $$ >> pid; exec sleep 3600"]}}

    async def run() -> None:
        it, _ = server(hook)
        running = asyncio.create_task(it.run())
        await eventually(lambda: events(tmp_path) == ["start"])
        stopping = asyncio.create_task(it.stop())
        await eventually(lambda: bool(pids(tmp_path)))
        it.kill()
        await asyncio.wait_for(stopping, DEADLINE / 2)
        await running
        assert is_gone(pids(tmp_path)[0])

    asyncio.run(run())


def test_stop_during_a_restart(tmp_path: Path) -> None:
    """The hook is done once, and no other process is started."""
    hook = {"exec": {"command": ["sh", "-c", "echo bye >> events; until test -e on; do :; done"]}}

    async def run() -> None:
        it, _ = server(hook)
        running = asyncio.create_task(it.run())
        await eventually(lambda: events(tmp_path) == ["start"])
        restarting = asyncio.create_task(it.restart())
        await eventually(lambda: events(tmp_path) == ["start", "bye"])
        stopping = asyncio.create_task(it.stop())
        await asyncio.sleep(0)
        (tmp_path / "on").touch()
        await asyncio.gather(restarting, stopping, running)
        assert events(tmp_path) == ["start", "bye", "SIGTERM"]

    asyncio.run(run())


def test_children_of_the_dead_are_ended(tmp_path: Path) -> None:
    """What a container leaves behind would hold its port against the next one."""
    leave = "import os, subprocess; child = subprocess.Popen(['sleep', '60']).pid;"
    leave += "open('pid', 'w').write(str(child)); os._exit(1)"

    async def run() -> None:
        it = ContainerProcess([sys.executable, "-c", leave], {})
        running = asyncio.create_task(it.run())
        await eventually(lambda: bool(pids(tmp_path)))
        await eventually(lambda: is_gone(pids(tmp_path)[0]))
        await it.stop()
        await running

    asyncio.run(run())


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def test_command_that_cannot_be_run(tmp_path: Path) -> None:
    """It is an error at the first start; later it is tried again, as whatever else goes wrong."""
    command = tmp_path / "command"

    async def run() -> None:
        it = ContainerProcess([str(command)], {})
        with pytest.raises(FileNotFoundError):
            await it.run()
        command.write_text("#!/bin/sh\necho 0 >> pid; mv command moved; exit 1")
        command.chmod(0o700)
        running = asyncio.create_task(it.run())
        await eventually(lambda: (tmp_path / "moved").exists())
        await eventually(lambda: it.generation is None)
        (tmp_path / "moved").rename(command)
        await eventually(lambda: len(pids(tmp_path)) >= 2)
        await it.stop()
        await running

    asyncio.run(run())


def test_pre_stop_is_within_the_grace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook that takes longer is ended, and so is the container."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)

    async def run() -> None:
        it, _ = server({"exec": {"command": ["sleep", "60"]}})
        running = asyncio.create_task(it.run())
        await eventually(lambda: events(tmp_path) == ["start"])
        await asyncio.wait_for(it.stop(), DEADLINE / 2)
        await running

    asyncio.run(run())


def test_restarted_when_not_alive(tmp_path: Path) -> None:
    """A failed liveness probe leads through pre_stop and SIGTERM to the next process."""
    pre_stop = "echo bye >> events; touch mended"
    alive = "test ! -e events || test -e mended"

    async def run() -> None:
        it, target = server({"exec": {"command": ["sh", "-c", pre_stop]}})
        probe = Probe.model_validate(
            {
                "exec": {"command": ["sh", "-c", alive]},
                "period_seconds": 1,
                "timeout_seconds": 30,
                "failure_threshold": 1,
            }
        )
        running = asyncio.create_task(it.run())
        watching = asyncio.create_task(
            watch_liveness(probe, target, lambda: it.generation, it.restart)
        )
        await eventually(lambda: events(tmp_path) == ["start", "bye", "SIGTERM", "start"])
        assert it.generation == 2
        watching.cancel()
        await asyncio.wait({watching})
        await it.stop()
        await running

    asyncio.run(run())


def test_environment_and_port_in_command(tmp_path: Path) -> None:
    """The environment of cortex.yaml reaches the process, and $(NAME) its arguments."""

    async def run() -> None:
        code = "import os, sys; open('seen', 'w').write(os.environ['A'] + sys.argv[1] + '\\n')"
        it = ContainerProcess(
            [sys.executable, "-c", code, "$(CORTEX_PORT)"], {"A": "1", "CORTEX_PORT": "2"}
        )
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
