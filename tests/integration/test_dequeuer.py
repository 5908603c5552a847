"""Delivery: how many at once, when at all, and again after a broken connection."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from project.asyncapi.config import Probe
from project.asyncapi.dequeuer import MAX_RECEIVES, Dequeuer
from project.asyncapi.handler import NotSuccessful, RequestHandler, Unreachable
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import RequestQueue, Signal
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError
from project.asyncapi.types import Delivery, Request, Status, Workload
from tests.helpers import DEADLINE, eventually


class FakeHandler:
    """Stands for the container: held by ``gate``, answers by the body.

    Attributes:
        running, most: requests in it now, and at the most.
        seen: ids, as often as they were sent.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = self.most = 0
        self.seen: list[str] = []

    async def submit(self, request: Request) -> bytes:
        """Answer as the body asks."""
        self.seen.append(request.id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        if request.body == b"break":
            raise Unreachable("it broke")
        if request.body == b"break once" and self.seen.count(request.id) == 1:
            raise Unreachable("it broke")
        if request.body == b"unforeseen":
            raise ZeroDivisionError("who would have thought")
        if request.body == b"refuse":
            raise NotSuccessful("got status code 422")
        return b"{}"


@dataclass
class Rig:
    """A dequeuer with its neighbours."""

    queue: RequestQueue
    handler: FakeHandler
    readiness: Readiness
    dequeuer: Dequeuer
    changed: Signal
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def ready(self) -> None:
        """The probe has passed."""
        self.readiness.ready = True
        self.changed.send()

    async def send(self, name: str, body: bytes = b"") -> None:
        """Put a request in the queue."""
        await self.queue.send(Request(name, (), body))

    async def status(self, name: str) -> Workload:
        """What is known of a request."""
        workload = await self.queue.get(name)
        assert workload is not None
        return workload

    async def until(self, name: str, status: Status) -> Workload:
        """Wait for a status."""
        async with asyncio.timeout(DEADLINE):
            while True:
                changed = self.changed.listen()
                workload = await self.status(name)
                if workload.status is status:
                    return workload
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), 0.01)

    async def attempts(self, count: int) -> None:
        """Wait until ``count`` requests were sent and the last one has broken."""
        await eventually(lambda: len(self.handler.seen) == count and not self.readiness.ready)


@asynccontextmanager
async def rig(path: Path, max_concurrency: int = 2) -> AsyncIterator[Rig]:
    """A running dequeuer over a real SQLite file; not ready yet."""
    changed = Signal()
    queue = RequestQueue(SQLiteStorage(path / "queue.sqlite3"), changed)
    handler = FakeHandler()
    probe = Probe.model_validate({"tcp_socket": {"port": 1}})
    readiness = Readiness(probe, "127.0.0.1", {}, changed)
    dequeuer = Dequeuer(queue, cast("RequestHandler", handler), readiness, changed, max_concurrency)
    running = asyncio.create_task(dequeuer.run())
    yield Rig(queue, handler, readiness, dequeuer, changed, [running])
    dequeuer.stop()
    handler.gate.set()
    await running
    queue.close()


def test_nothing_is_pulled_while_not_ready(tmp_path: Path) -> None:
    """Requests wait in the queue until the probe passes."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            await it.send("a")
            for _ in range(20):
                await asyncio.sleep(0)
            assert (await it.status("a")).status is Status.IN_QUEUE
            it.ready()
            await it.until("a", Status.COMPLETED)

    asyncio.run(run())


def test_concurrency_is_reached_and_kept(tmp_path: Path) -> None:
    """max_concurrency requests are in the container, never one more."""

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=3) as it:
            it.handler.gate.clear()
            it.ready()
            for number in range(10):
                await it.send(str(number))
            await it.until("2", Status.IN_PROGRESS)
            assert (await it.status("3")).status is Status.IN_QUEUE
            it.handler.gate.set()
            for number in range(10):
                await it.until(str(number), Status.COMPLETED)
            assert it.handler.most == 3

    asyncio.run(run())


def test_refused_is_final(tmp_path: Path) -> None:
    """An answer that is no success fails the request, once, with the reason."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a", b"refuse")
            workload = await it.until("a", Status.FAILED)
            assert workload.reason == "got status code 422"
            assert it.handler.seen == ["a"]

    asyncio.run(run())


def test_unforeseen_error_is_final(tmp_path: Path) -> None:
    """What no code expects fails its request: nothing is stuck or sent for ever."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a", b"unforeseen")
            workload = await it.until("a", Status.FAILED)
            assert workload.reason == "ZeroDivisionError: who would have thought"

    asyncio.run(run())


def test_broken_connection_is_sent_again(tmp_path: Path) -> None:
    """After a break nothing is pulled until the probe passes; then the request completes."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a", b"break once")
            await it.until("a", Status.IN_PROGRESS)
            await it.until("a", Status.IN_QUEUE)
            assert not it.readiness.ready
            it.ready()
            await it.until("a", Status.COMPLETED)
            assert it.handler.seen == ["a", "a"]

    asyncio.run(run())


def test_what_keeps_breaking_fails(tmp_path: Path) -> None:
    """A request that breaks every connection ends, and the next one is served."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            await it.send("a", b"break")
            for number in range(MAX_RECEIVES):
                it.ready()
                await it.attempts(number + 1)
            workload = await it.until("a", Status.FAILED)
            assert workload.reason == f"it broke, {MAX_RECEIVES} times"
            it.ready()
            await it.send("b")
            await it.until("b", Status.COMPLETED)

    asyncio.run(run())


def test_stop_finishes_what_runs(tmp_path: Path) -> None:
    """Stopping lets the container answer, and leaves the rest in the queue."""

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=1) as it:
            it.handler.gate.clear()
            it.ready()
            await it.send("a")
            await it.send("b")
            await it.until("a", Status.IN_PROGRESS)
            it.dequeuer.stop()
            await asyncio.sleep(0)
            assert not it.tasks[0].done()
            it.handler.gate.set()
            await it.tasks[0]
            assert (await it.status("a")).status is Status.COMPLETED
            assert (await it.status("b")).status is Status.IN_QUEUE

    asyncio.run(run())


def test_abandoned_stays_in_progress(tmp_path: Path) -> None:
    """Who cannot wait drops what runs; the storage hands it out at the next start."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.handler.gate.clear()
            it.ready()
            await it.send("a")
            await it.until("a", Status.IN_PROGRESS)
            it.dequeuer.stop()
            it.dequeuer.abandon()
            await it.tasks[0]
            assert (await it.status("a")).status is Status.IN_PROGRESS

    asyncio.run(run())


def test_storage_error_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that fails once delays a request; it does not stop the dequeuer."""
    monkeypatch.setattr("project.asyncapi.dequeuer.STORAGE_RETRY_SECONDS", 0.0)
    receive = SQLiteStorage.receive
    failures = [StorageError("disk full")]

    def flaky(self: SQLiteStorage, limit: int) -> list[Delivery]:
        if failures:
            raise failures.pop()
        return receive(self, limit)

    monkeypatch.setattr(SQLiteStorage, "receive", flaky)

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a")
            await it.until("a", Status.COMPLETED)

    asyncio.run(run())


def test_unstored_end_is_survived(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that cannot be stored leaves its request for the next start."""

    def full(self: SQLiteStorage, request_id: str, result: bytes) -> None:
        raise StorageError("disk full")

    async def run() -> None:
        async with rig(tmp_path) as it:
            with monkeypatch.context() as patch:
                patch.setattr(SQLiteStorage, "complete", full)
                it.ready()
                await it.send("a")
                await it.until("a", Status.IN_PROGRESS)
                await eventually(lambda: bool(it.handler.seen) and not it.handler.running)
            await it.send("b")
            await it.until("b", Status.COMPLETED)
            assert (await it.status("a")).status is Status.IN_PROGRESS

    asyncio.run(run())
