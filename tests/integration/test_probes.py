"""When the container counts as ready, and when as no longer alive."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from project.asyncapi.checks import Target
from project.asyncapi.container_spec import Hook, Probe
from project.asyncapi.probes import Readiness, watch_liveness
from project.asyncapi.waiting import Signal
from tests.helpers import DEADLINE, eventually, free_port, listening


class Container:
    """A container that can be switched; remembers the probes that reached it."""

    def __init__(self) -> None:
        self.status = "503 Later"
        self.requests: list[bytes] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one probe."""
        with contextlib.suppress(asyncio.IncompleteReadError):
            self.requests.append(await reader.readuntil(b"\r\n\r\n"))
            head = f"HTTP/1.1 {self.status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            writer.write(head.encode())


@contextlib.asynccontextmanager
async def container() -> AsyncIterator[Container]:
    """A listening container."""
    it = Container()
    async with listening(it.serve) as it.port:
        yield it


def target(*ports: int, env: dict[str, str] | None = None) -> Target:
    """A pod whose ports 1, 2, ... are found at ``ports``."""
    return Target("127.0.0.1", dict(enumerate(ports, start=1)), env or {})


def configured(probe: dict[str, Any]) -> Probe:
    """As in a file, but for the period, if none is given: a file has whole seconds."""
    update = {} if "period_seconds" in probe else {"period_seconds": 0.05}
    return Probe.model_validate(probe).model_copy(update=update)


@contextlib.asynccontextmanager
async def probing(
    where: Target, *probes: dict[str, Any]
) -> AsyncIterator[tuple[Readiness, Signal]]:
    """Running probes."""
    changed = Signal()
    readiness = Readiness([configured(probe) for probe in probes], where, changed)
    task = asyncio.create_task(readiness.run())
    yield readiness, changed
    task.cancel()
    await asyncio.wait({task})


async def until(readiness: Readiness, changed: Signal, *, ready: bool) -> None:
    """Wait for the readiness to become ``ready``."""
    async with asyncio.timeout(20):
        event = changed.listen()
        while readiness.ready is not ready:
            await event.wait()
            event = changed.listen()


def passes(check: dict[str, Any], where: Target, timeout_seconds: float = DEADLINE) -> bool:
    """One look."""
    return asyncio.run(where.passes(Probe.model_validate(check), timeout_seconds))


def test_http_probe() -> None:
    """Ready at 200, asked as the kubelet asks, on its path; soon, whatever the period."""

    async def run() -> None:
        async with (
            container() as it,
            probing(
                target(it.port),
                {"http_get": {"port": 1, "path": "health"}, "period_seconds": 3600},
            ) as (readiness, changed),
        ):
            await eventually(lambda: bool(it.requests))
            assert not readiness.ready
            it.status = "200 OK"
            await until(readiness, changed, ready=True)
            line, *fields = it.requests[0].rstrip().split(b"\r\n")
            assert line == b"GET /health HTTP/1.1"
            assert sorted(fields) == [
                b"Accept-Encoding: gzip",
                b"Host: localhost:1",
                b"User-Agent: kube-probe/",
            ]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("status", "healthy"),
    [
        ("200 OK", True),
        ("204 Fine", True),
        ("302 Found", True),
        ("399 Odd", True),
        ("400 Bad", False),
        ("404 None", False),
        ("500 No", False),
        ("nonsense", False),
    ],
)
def test_status_of_http_get(status: str, healthy: bool) -> None:
    """200 to 399 is healthy."""

    async def run() -> bool:
        async with container() as it:
            it.status = status
            check = Probe.model_validate({"http_get": {"port": 1}})
            return await target(it.port).passes(check, DEADLINE)

    assert asyncio.run(run()) is healthy


def test_every_probe_must_pass() -> None:
    """One that fails is enough for nothing to be pulled, whichever it is."""

    async def run() -> None:
        probes: list[dict[str, Any]] = [
            {"http_get": {"port": port}, "failure_threshold": 1} for port in (1, 2)
        ]
        async with (
            container() as one,
            container() as two,
            probing(target(one.port, two.port), *probes) as (readiness, changed),
        ):
            one.status = "200 OK"
            seen = len(one.requests)
            await eventually(lambda: len(one.requests) > seen + 1 and bool(two.requests))
            assert not readiness.ready
            two.status = "200 OK"
            await until(readiness, changed, ready=True)
            one.status = "500 No"
            await until(readiness, changed, ready=False)
            one.status = "200 OK"
            await until(readiness, changed, ready=True)

    asyncio.run(run())


def test_ready_again_after_a_broken_connection() -> None:
    """What broke is probed at once, not after a period."""

    async def run() -> None:
        async with (
            container() as it,
            probing(target(it.port), {"http_get": {"port": 1}, "period_seconds": 3600}) as (
                readiness,
                changed,
            ),
        ):
            it.status = "204 Fine"
            await until(readiness, changed, ready=True)
            readiness.lost()
            assert not readiness.ready
            await until(readiness, changed, ready=True)

    asyncio.run(run())


def test_probe_that_was_under_way_when_a_connection_broke() -> None:
    """Its pass is of the container that was there before: the next probe decides."""

    async def run() -> None:
        asked = 0
        go_on = asyncio.Event()

        class Held(Target):
            async def passes(self, *_: object) -> bool:
                nonlocal asked
                asked += 1
                answered = asked
                if answered == 2:
                    await go_on.wait()
                return answered <= 2

        probe = {"http_get": {"port": 1}, "period_seconds": 3600}
        async with probing(Held("127.0.0.1", {}, {}), probe) as (readiness, changed):
            await until(readiness, changed, ready=True)
            readiness.lost()
            await eventually(lambda: asked == 2)
            readiness.lost()
            go_on.set()
            await eventually(lambda: asked == 3)
            await asyncio.sleep(0)
            assert not readiness.ready

    asyncio.run(run())


def test_thresholds() -> None:
    """Ready after success_threshold probes in a row, given up after failure_threshold."""

    async def run() -> None:
        probe = {"http_get": {"port": 1}}
        async with (
            container() as it,
            probing(target(it.port), {**probe, "success_threshold": 3, "failure_threshold": 2}) as (
                readiness,
                changed,
            ),
        ):
            it.status = "200 OK"
            await until(readiness, changed, ready=True)
            assert len(it.requests) >= 3
            it.status = "500 No"
            before = len(it.requests)
            await until(readiness, changed, ready=False)
            assert len(it.requests) - before >= 2

    asyncio.run(run())


@pytest.mark.parametrize("check", [{"tcp_socket": {"port": 1}}, {"http_get": {"port": 1}}])
def test_nobody_listens(check: dict[str, Any]) -> None:
    """A refused connection is a failed probe, not an error."""
    assert not passes(check, target(free_port()))


def test_tcp_socket() -> None:
    """A port that takes connections is healthy, and gets no bytes."""

    async def run() -> None:
        async with container() as it:
            check = Probe.model_validate({"tcp_socket": {"port": 1}})
            assert await target(it.port).passes(check, DEADLINE)
            assert it.requests == []

    asyncio.run(run())


def test_silence_is_a_failure() -> None:
    """A container that takes the connection and says nothing fails after timeout_seconds."""

    async def run() -> bool:
        async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
            await reader.read()  # until the probe has gone

        async with listening(say_nothing) as port:
            return await target(port).passes(Probe.model_validate({"http_get": {"port": 1}}), 0.1)

    assert not asyncio.run(run())


@pytest.mark.parametrize(
    ("command", "healthy"),
    [
        (["true"], True),
        (["false"], False),
        (["sh", "-c", 'test "$NAME" = value'], True),
        (["no-such-command"], False),
    ],
)
def test_exec(command: list[str], healthy: bool) -> None:
    """A command passes with exit code 0; it sees the container's environment."""
    where = target(env={"NAME": "value"})

    assert passes({"exec": {"command": command}}, where) is healthy


def test_exec_that_takes_too_long(tmp_path: Path) -> None:
    """It fails, and is ended together with its children."""
    pid = tmp_path / "pid"
    command = ["sh", "-c", f"echo $$ > {pid}; sleep 60; true"]

    started = time.monotonic()
    assert not passes({"exec": {"command": command}}, target(), 1)
    assert time.monotonic() - started < DEADLINE / 2
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_hook() -> None:
    """What is done before the stop is looked at the same way."""
    hook = Hook.model_validate({"exec": {"command": ["true"]}})

    assert asyncio.run(target().passes(hook, DEADLINE))


async def restarted_after(
    it: Container, probe: dict[str, Any], generations: list[int | None]
) -> int:
    """How many probes it takes until ``it`` is restarted.

    Args:
        generations: of the process, by the number of probes; the last one stays.
    """
    restarted = asyncio.Event()

    async def restart() -> None:
        restarted.set()

    def generation() -> int | None:
        return generations[min(len(it.requests), len(generations) - 1)]

    watching = asyncio.create_task(
        watch_liveness(configured(probe), target(it.port), generation, restart)
    )
    async with asyncio.timeout(DEADLINE):
        await restarted.wait()
    count = len(it.requests)
    watching.cancel()
    await asyncio.wait({watching})
    return count


@pytest.mark.parametrize(
    ("generations", "probes"),
    [
        ([1], 2),
        ([1, 2], 3),  # the first failure was another container's
        ([1, None, None, None, None, 2], 7),  # none ran for a while: there was nothing to restart
    ],
)
def test_restarted_when_not_alive(generations: list[int | None], probes: int) -> None:
    """After failure_threshold failures in a row of one and the same container."""

    async def run() -> int:
        async with container() as it:
            probe = {"http_get": {"port": 1}, "failure_threshold": 2}
            return await restarted_after(it, probe, generations)

    assert asyncio.run(run()) == probes
