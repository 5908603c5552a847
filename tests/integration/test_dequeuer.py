"""Delivery: how many at once, when at all, and again after a broken connection."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest

from project.asyncapi import dequeuer as module
from project.asyncapi.checks import Target
from project.asyncapi.container_spec import Probe
from project.asyncapi.dequeuer import AHEAD, Dequeuer, Policy
from project.asyncapi.handler import NotSuccessful, RequestHandler, Unreachable
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import RequestQueue
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError
from project.asyncapi.types import Delivery, Request, Status, Workload
from project.asyncapi.waiting import Signal, first_of
from tests.helpers import DEADLINE, eventually

MAX_RECEIVES = 3


@pytest.fixture(autouse=True)
def _no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the dequeuer does not hear of, it does not find by chance."""
    monkeypatch.setattr(module, "LONG_POLL_SECONDS", 10 * DEADLINE)


class FakeHandler:
    """Stands for the container: held by ``gate``, answers by the body.

    Attributes:
        running, most: requests in it now, and at the most.
        seen: ids, as often as they were sent.
        beside: how many others were in it when an id was sent.
    """

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self._crash = asyncio.Event()
        self.beside: dict[str, list[int]] = {}
        self.running = self.most = 0
        self.seen: list[str] = []

    async def submit(self, request: Request) -> bytes:
        """Answer as the body asks."""
        self.seen.append(request.id)
        self.beside.setdefault(request.id, []).append(self.running)
        self.running += 1
        self.most = max(self.most, self.running)
        crash = self._crash
        try:
            if request.body == b"kill":
                await asyncio.sleep(0)  # until the others of this turn are here
                self._crash.set()
                self._crash = asyncio.Event()
            else:
                await first_of(self.gate.wait(), crash.wait())
        finally:
            self.running -= 1
        if crash.is_set():
            raise Unreachable("the container died")
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

    async def received(self, count: int) -> list[Delivery]:
        """What another dequeuer would receive, as soon as it is so many."""
        received: list[Delivery] = []
        async with asyncio.timeout(DEADLINE):
            while len(received) < count:
                received += await self.queue.receive(count, 60)
        return sorted(received, key=lambda each: each.request.id)

    async def attempts(self, count: int) -> None:
        """Wait until ``count`` requests were sent and the last one has broken."""
        await eventually(lambda: len(self.handler.seen) == count and not self.readiness.ready)


@asynccontextmanager
async def rig(
    path: Path, max_concurrency: int = 2, *, faithful: bool = False
) -> AsyncIterator[Rig]:
    """A running dequeuer over a real SQLite file; not ready yet."""
    changed = Signal()
    queue = RequestQueue(SQLiteStorage(path / "queue.sqlite3"), changed, max_length=100)
    handler = FakeHandler()
    probe = Probe.model_validate({"tcp_socket": {"port": 1}})
    readiness = Readiness([probe], Target("127.0.0.1", {}, {}), changed)
    policy = Policy(max_concurrency, MAX_RECEIVES, faithful)
    dequeuer = Dequeuer(queue, cast("RequestHandler", handler), readiness, changed, policy)
    running = asyncio.create_task(dequeuer.run())
    yield Rig(queue, handler, readiness, dequeuer, changed, [running])
    dequeuer.stop()
    handler.gate.set()
    await running
    await queue.close()


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


def test_next_is_sent_before_the_end_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The container has the next request while ends cannot be stored, up to a bound."""
    monkeypatch.setattr(module, "STORAGE_RETRY_SECONDS", 0.01)
    written = threading.Event()
    complete = SQLiteStorage.complete

    def refuse(self: SQLiteStorage, delivery: Delivery, result: bytes) -> None:
        if not written.is_set():
            raise StorageError("not yet")
        complete(self, delivery, result)

    monkeypatch.setattr(SQLiteStorage, "complete", refuse)

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=1) as it:
            names = [str(number) for number in range(3 * AHEAD)]
            for name in names:
                await it.send(name)
            it.ready()
            await eventually(lambda: len(it.handler.seen) == 1 + AHEAD)
            await it.until(names[AHEAD], Status.IN_PROGRESS)
            assert it.handler.seen == names[: 1 + AHEAD]  # no more: they would pile up
            written.set()
            for name in names:
                await it.until(name, Status.COMPLETED)
            assert it.handler.seen == names
            assert it.handler.most == 1

    asyncio.run(run())


def test_what_is_ahead_is_given_back(tmp_path: Path) -> None:
    """What was leased for a container that is not ready any more is another's, and not counted."""

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=1) as it:
            it.handler.gate.clear()
            for name in "abc":
                await it.send(name)
            it.ready()
            await it.until("a", Status.IN_PROGRESS)
            assert await it.queue.receive(3, 60) == []  # leased, all of them
            it.readiness.lost()
            others = await it.received(2)
            assert [(each.request.id, each.receives) for each in others] == [("b", 1), ("c", 1)]
            assert (await it.status("b")).status is Status.IN_QUEUE
            it.handler.gate.set()
            await it.until("a", Status.COMPLETED)
            assert it.handler.seen == ["a"]

    asyncio.run(run())


def test_what_is_ahead_is_not_sent_after_a_break(tmp_path: Path) -> None:
    """One broken connection costs one delivery: of the request that was in the container."""

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=1) as it:
            it.handler.gate.clear()
            await it.send("a", b"break once")
            await it.send("b")
            it.ready()
            await eventually(lambda: it.handler.seen == ["a"])
            it.handler.gate.set()
            await it.attempts(1)
            received = await it.received(2)
            assert [(each.request.id, each.receives) for each in received] == [("a", 2), ("b", 1)]
            assert it.handler.seen == ["a"]

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
            await it.attempts(1)
            assert (await it.status("a")).status is Status.IN_PROGRESS
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


def test_who_was_beside_the_culprit_is_not_failed_with_it(tmp_path: Path) -> None:
    """The last time each is sent alone: only the one that breaks the container alone fails."""

    async def run() -> None:
        async with rig(tmp_path, max_concurrency=3) as it:
            it.handler.gate.clear()
            for name, body in (("a", b""), ("culprit", b"kill"), ("b", b"")):
                await it.send(name, body)
            it.ready()
            await it.attempts(3)

            def sent(times: int) -> bool:
                it.ready()
                return it.handler.seen.count("culprit") == times

            await eventually(lambda: sent(2))
            it.handler.gate.set()
            await eventually(lambda: sent(3))
            await it.until("culprit", Status.FAILED)
            it.ready()
            for name in "ab":
                await it.until(name, Status.COMPLETED)
            assert it.handler.beside["culprit"][-1] == 0

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
            assert [each.receives for each in await it.received(1)] == [1]

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
    monkeypatch.setattr(module, "STORAGE_RETRY_SECONDS", 0.0)
    receive = SQLiteStorage.receive
    failures = [StorageError("disk full")]

    def flaky(self: SQLiteStorage, limit: int, lease_seconds: float) -> list[Delivery]:
        if failures:
            raise failures.pop()
        return receive(self, limit, lease_seconds)

    monkeypatch.setattr(SQLiteStorage, "receive", flaky)

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a")
            await it.until("a", Status.COMPLETED)
            assert not failures

    asyncio.run(run())


def test_end_is_stored_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that cannot be stored is kept until it can; the container is not asked again."""
    monkeypatch.setattr(module, "STORAGE_RETRY_SECONDS", 0.0)
    complete = SQLiteStorage.complete
    failures = [StorageError("disk full")] * 3

    def flaky(self: SQLiteStorage, delivery: Delivery, result: bytes) -> None:
        if failures:
            raise failures.pop()
        complete(self, delivery, result)

    monkeypatch.setattr(SQLiteStorage, "complete", flaky)

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a")
            await it.until("a", Status.COMPLETED)
            assert not failures
            assert it.handler.seen == ["a"]

    asyncio.run(run())


def test_lease_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may take longer than a lease: the request is not sent to it twice."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.3)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    renewed: list[str] = []
    renew = SQLiteStorage.renew

    def counted(self: SQLiteStorage, delivery: Delivery, lease_seconds: float) -> None:
        renew(self, delivery, lease_seconds)
        renewed.append(delivery.request.id)

    monkeypatch.setattr(SQLiteStorage, "renew", counted)

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.handler.gate.clear()
            it.ready()
            await it.send("a")
            await eventually(lambda: len(renewed) > 10)
            it.changed.send()  # the dequeuer looks for more
            it.handler.gate.set()
            await it.until("a", Status.COMPLETED)
            assert it.handler.seen == ["a"]

    asyncio.run(run())


def test_leases_that_could_not_be_renewed_are_not_taken_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a full disk or a stop of the process: renewed first, or a request would run twice."""
    monkeypatch.setattr(module, "LEASE_SECONDS", 0.2)
    monkeypatch.setattr(module, "RENEW_SECONDS", 0.05)
    monkeypatch.setattr(module, "STORAGE_RETRY_SECONDS", 0.05)
    renew, failures = SQLiteStorage.renew, [0]

    def fail(*_: object) -> None:
        failures[0] += 1
        raise StorageError("no room")

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.handler.gate.clear()
            monkeypatch.setattr(SQLiteStorage, "renew", fail)
            it.ready()
            await it.send("a")
            await eventually(lambda: failures[0] > 6)
            await it.send("b")
            await eventually(lambda: failures[0] > 9)
            monkeypatch.setattr(SQLiteStorage, "renew", renew)
            await eventually(lambda: "b" in it.handler.seen)
            it.handler.gate.set()
            for name in "ab":
                await it.until(name, Status.COMPLETED)
            assert it.handler.seen == ["a", "b"]

    asyncio.run(run())


def test_second_looks_are_a_long_poll_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dequeuer to which nothing happens does nothing."""
    monkeypatch.setattr(module, "LONG_POLL_SECONDS", 0.05)
    looks: list[float] = []
    pull = Dequeuer._pull

    async def look(self: Dequeuer) -> None:
        looks.append(asyncio.get_running_loop().time())
        await pull(self)

    monkeypatch.setattr(Dequeuer, "_pull", look)

    async def run() -> None:
        async with rig(tmp_path):
            await eventually(lambda: len(looks) > 4)

    asyncio.run(run())
    assert looks[4] - looks[1] >= 0.14


def test_damaged_request_fails_alone(tmp_path: Path) -> None:
    """What the file has lost is not sent; the others are."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            await it.send("a", b"lost")
            await it.send("b")
            with contextlib.closing(sqlite3.connect(tmp_path / "queue.sqlite3")) as file:
                file.execute("DELETE FROM payloads WHERE body = ?", (b"lost",))
                file.commit()
            it.ready()
            await it.until("b", Status.COMPLETED)
            workload = await it.until("a", Status.FAILED)
            assert workload.reason == "the storage's file is damaged where it is"
            assert it.handler.seen == ["b"]

    asyncio.run(run())


def test_end_of_a_lost_lease_is_dropped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Who holds the request now decides its end; the late one is logged."""

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.handler.gate.clear()
            it.ready()
            await it.send("a")
            await eventually(lambda: bool(it.handler.seen))
            (delivery,) = it.dequeuer._running.values()
            await it.queue.complete(delivery, b'{"by": "another"}')
            it.handler.gate.set()
            await eventually(lambda: "too late" in caplog.text)
            assert (await it.status("a")).result == b'{"by": "another"}'

    asyncio.run(run())


def test_faithful_fails_at_once(tmp_path: Path) -> None:
    """As on a cluster, a broken connection is final, and the probe alone decides the readiness."""

    async def run() -> None:
        async with rig(tmp_path, faithful=True) as it:
            it.ready()
            await it.send("a", b"break once")
            assert (await it.until("a", Status.FAILED)).reason == "it broke"
            assert it.handler.seen == ["a"]
            assert it.readiness.ready

    asyncio.run(run())


def test_list_is_stored_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A list completes, as on a cluster, and the log says why nobody can read it."""

    async def answer(self: FakeHandler, request: Request) -> bytes:
        return b"[1]"

    monkeypatch.setattr(FakeHandler, "submit", answer)

    async def run() -> None:
        async with rig(tmp_path) as it:
            it.ready()
            await it.send("a")
            await it.until("a", Status.COMPLETED)

    asyncio.run(run())
    assert "answered with a JSON array" in caplog.text
