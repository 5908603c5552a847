"""When the container counts as ready."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from project.asyncapi.config import Probe
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import Signal
from tests.helpers import eventually, free_port


class Target:
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
        writer.close()
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def target() -> AsyncIterator[Target]:
    """A listening target."""
    it = Target()
    server = await asyncio.start_server(it.serve, "127.0.0.1", 0)
    it.port = server.sockets[0].getsockname()[1]
    async with server:
        yield it


@contextlib.asynccontextmanager
async def probing(port: int, **probe: Any) -> AsyncIterator[tuple[Readiness, Signal]]:  # noqa: ANN401
    """A running probe of pod port 1, which is found at ``port``."""
    changed = Signal()
    readiness = Readiness(Probe.model_validate(probe), "127.0.0.1", {1: port}, changed)
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


def test_http_probe() -> None:
    """Ready at 200, with the kubelet's user agent on the configured path."""

    async def run() -> None:
        async with (
            target() as it,
            probing(it.port, http_get={"port": 1, "path": "health"}) as (
                readiness,
                changed,
            ),
        ):
            await eventually(lambda: bool(it.requests))
            assert not readiness.ready
            it.status = "200 OK"
            await until(readiness, changed, ready=True)
            assert it.requests[0].startswith(b"GET /health HTTP/1.1\r\n")
            assert b"kube-probe/" in it.requests[0]

    asyncio.run(run())


def test_ready_again_after_a_broken_connection() -> None:
    """What broke is probed at once, not after a period."""

    async def run() -> None:
        async with (
            target() as it,
            probing(it.port, http_get={"port": 1}, period_seconds=3600) as (readiness, changed),
        ):
            it.status = "204 Fine"
            await until(readiness, changed, ready=True)
            readiness.lost()
            assert not readiness.ready
            await until(readiness, changed, ready=True)

    asyncio.run(run())


def test_failure_threshold() -> None:
    """A ready container is given up after failure_threshold probes in a row."""

    async def run() -> None:
        async with (
            target() as it,
            probing(it.port, http_get={"port": 1}, period_seconds=1, failure_threshold=2) as (
                readiness,
                changed,
            ),
        ):
            it.status = "200 OK"
            await until(readiness, changed, ready=True)
            it.status = "500 No"
            before = len(it.requests)
            await until(readiness, changed, ready=False)
            assert len(it.requests) - before >= 2

    asyncio.run(run())


@pytest.mark.parametrize("listening", [True, False])
def test_tcp_probe(listening: bool) -> None:
    """A port is ready when it takes connections."""

    async def run() -> None:
        async with target() as it:
            port = it.port if listening else free_port()
            async with probing(port, tcp_socket={"port": 1}) as (readiness, changed):
                if listening:
                    await until(readiness, changed, ready=True)
                else:
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(1):
                            await until(readiness, changed, ready=True)

    asyncio.run(run())


def test_http_probe_of_nobody() -> None:
    """A refused connection is a failed probe, not an error."""

    async def run() -> None:
        async with probing(free_port(), http_get={"port": 1}) as (readiness, changed):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await until(readiness, changed, ready=True)

    asyncio.run(run())
