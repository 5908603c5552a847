"""The queue: what shares a commit, who gets which error, and how long it may become."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from project.asyncapi import queue as module
from project.asyncapi.queue import GROUP, SIBLINGS, QueueFull, RequestQueue
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import DuplicateRequest, LeaseLost, StorageError, StorageFull
from project.asyncapi.types import Delivery, Depth, Request, Status, Workload
from project.asyncapi.waiting import Signal
from tests.helpers import DEADLINE, eventually

LEASE = 30.0  # seconds
OPEN = {Status.IN_QUEUE, Status.IN_PROGRESS}


def request(name: str, body: bytes = b"") -> Request:
    """A request named ``name``."""
    return Request(name, (), body)


class FakeStorage:
    """Dictionaries that are put back when a transaction fails; can be held, and told to fail.

    Attributes:
        transactions: the calls of every transaction that began, and whether it was durable.
        gate: a transaction waits until it is set.
        culprits: a transaction with one of these ids in it fails at its end.
    """

    def __init__(self) -> None:
        self.transactions: list[tuple[list[str], bool]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.culprits: set[str] = set()
        self.closed = False
        self._requests: dict[str, Request] = {}
        self._statuses: dict[str, Status] = {}
        self._leased: set[str] = set()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """All or nothing."""
        calls: list[str] = []
        self.transactions.append((calls, durable))
        assert self.gate.wait(DEADLINE)
        before = self._requests.copy(), self._statuses.copy(), self._leased.copy()
        try:
            yield
            self._commit(calls)
        except BaseException:
            self._requests, self._statuses, self._leased = before
            raise

    def add(self, request: Request) -> bool:
        """In queue."""
        self._note(request.id)
        known = self._requests.get(request.id)
        if known is None:
            self._requests[request.id] = request
            self._statuses[request.id] = Status.IN_QUEUE
        elif known.body != request.body:
            raise DuplicateRequest(request.id)
        return known is None

    def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """Those that have not ended."""
        self._note("receive")
        open_ = [name for name, each in self._statuses.items() if each in OPEN]
        received = [name for name in open_ if name not in self._leased][:limit]
        self._leased.update(received)
        return [Delivery(self._requests[name], 1, 1) for name in received]

    def renew(self, delivery: Delivery, lease_seconds: float) -> None:
        """Nothing but the check."""
        self._step(delivery)

    def begin(self, delivery: Delivery) -> None:
        """In progress."""
        self._step(delivery, Status.IN_PROGRESS)

    def complete(self, delivery: Delivery, result: bytes) -> None:
        """Completed."""
        self._step(delivery, Status.COMPLETED)

    def fail(self, delivery: Delivery, reason: str) -> None:
        """Failed."""
        self._step(delivery, Status.FAILED)

    def release(self, delivery: Delivery, *, broke: bool) -> None:
        """Not leased."""
        self._step(delivery)
        self._leased.discard(delivery.request.id)

    def get(self, request_id: str) -> Workload | None:
        """Its status."""
        status = self._statuses.get(request_id)
        return None if status is None else Workload(request_id, status)

    def depth(self) -> Depth:
        """Counted."""
        statuses = list(self._statuses.values())
        return Depth(statuses.count(Status.IN_QUEUE), statuses.count(Status.IN_PROGRESS))

    def purge(self, age_seconds: float, limit: int) -> int:
        """Nothing is old."""
        self._note("purge")
        return 0

    def close(self) -> None:
        """Noted."""
        self.closed = True

    def _commit(self, calls: list[str]) -> None:
        if culprits := self.culprits.intersection(calls):
            raise StorageFull(f"no room for {culprits}")

    def _note(self, name: str) -> None:
        self.transactions[-1][0].append(name)

    def _step(self, delivery: Delivery, status: Status | None = None) -> None:
        name = delivery.request.id
        self._note(name)
        if name not in self._leased:
            raise LeaseLost(name)
        if status is not None:
            self._statuses[name] = status
        if status in {Status.COMPLETED, Status.FAILED}:
            self._leased.discard(name)


@pytest.fixture
def storage() -> FakeStorage:
    """An empty storage."""
    return FakeStorage()


def with_queue(
    storage: FakeStorage,
    body: Callable[[RequestQueue, Signal], Awaitable[None]],
    max_length: int = 10_000,
) -> None:
    """Run ``body`` with a queue that is closed afterwards."""

    async def run() -> None:
        signal = Signal()
        queue = RequestQueue(storage, signal, max_length)
        try:
            await body(queue, signal)
        finally:
            storage.gate.set()
            await queue.close()
        assert storage.closed

    asyncio.run(run())


async def hold(queue: RequestQueue, storage: FakeStorage) -> asyncio.Task[int]:
    """Occupy the writer, so that what comes next collects."""
    before = len(storage.transactions)
    storage.gate.clear()
    holding = asyncio.create_task(queue.purge(0, 0))
    await eventually(lambda: len(storage.transactions) == before + 1)
    return holding


async def together(
    queue: RequestQueue, storage: FakeStorage, *calls: Awaitable[object]
) -> list[object]:
    """Make the calls while the writer is occupied; returns what each returned or raised."""
    holding = await hold(queue, storage)
    gathered = asyncio.gather(*calls, return_exceptions=True)
    await asyncio.sleep(0)  # they come to their turn
    storage.gate.set()
    await holding
    outcomes: list[object] = await gathered
    return outcomes


def test_concurrent_calls_share_commits(storage: FakeStorage) -> None:
    """What comes in during a commit is one commit, of no more than so many calls."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        names = [str(number) for number in range(GROUP + 10)]
        await together(queue, storage, *(queue.send(request(name)) for name in names))

        assert storage.transactions == [
            (["purge"], False),
            (names[:GROUP], True),
            (names[GROUP:], True),
        ]
        assert await queue.depth() == Depth(len(names), 0)

    with_queue(storage, body)


def test_only_what_was_promised_waits_for_the_disk(storage: FakeStorage) -> None:
    """New requests and ends are durable, and who shares their commit; leases do not wait for it."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        await queue.send(request("a"))
        (delivery,) = await queue.receive(1, LEASE)
        await queue.renew(delivery, LEASE)
        await queue.release(delivery, broke=True)
        (delivery,) = await queue.receive(1, LEASE)
        queue.begin(delivery)
        await eventually(lambda: storage.get("a") == Workload("a", Status.IN_PROGRESS))
        await queue.complete(delivery, b"{}")
        assert [durable for _, durable in storage.transactions] == [
            True, False, False, False, False, False, True,
        ]  # fmt: skip

        await together(queue, storage, queue.send(request("b")), queue.receive(1, LEASE))
        assert storage.transactions[-2:] == [(["receive"], False), (["b"], True)]

        (delivery,) = await queue.receive(1, LEASE)
        await together(queue, storage, queue.renew(delivery, LEASE), queue.send(request("c")))
        assert storage.transactions[-1] == (["b", "c"], True)

    with_queue(storage, body)


async def begin_all(queue: RequestQueue, count: int) -> list[Delivery]:
    """Send so many requests, and lease and begin them."""
    for number in range(count):
        await queue.send(request(str(number)))
    deliveries = await queue.receive(count, LEASE)
    for delivery in deliveries:
        queue.begin(delivery)
    return deliveries


def test_ends_wait_for_others(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """With others in the container, an end shares its commit with what somebody waits for."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 10 * DEADLINE)

    async def body(queue: RequestQueue, signal: Signal) -> None:
        first, *others = await begin_all(queue, SIBLINGS + 1)
        before = len(storage.transactions)
        end = asyncio.create_task(queue.complete(first, b"{}"))
        await asyncio.sleep(0)  # it comes to its turn
        assert await queue.receive(1, LEASE) == []  # which waits for none of them
        assert storage.transactions[before:] == [(["receive"], False)]

        await queue.send(request("next"))
        await end
        begun = [each.request.id for each in (first, *others)]
        assert storage.transactions[before + 1 :] == [([*begun, "0", "next"], True)]

    with_queue(storage, body)


def test_ends_do_not_wait_for_ever(storage: FakeStorage) -> None:
    """Nothing else needs to come."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        first, *_ = await begin_all(queue, SIBLINGS + 1)
        await queue.fail(first, "so")
        assert storage.get("0") == Workload("0", Status.FAILED)

    with_queue(storage, body)


def test_last_ends_do_not_wait(storage: FakeStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for all that is in the container has it at once, and a queue that closes, too."""
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 10 * DEADLINE)

    async def body(queue: RequestQueue, signal: Signal) -> None:
        *deliveries, other = await begin_all(queue, SIBLINGS + 3)
        await asyncio.gather(*(queue.complete(each, b"{}") for each in deliveries))
        assert await queue.depth() == Depth(0, 1)

        await queue.release(other, broke=True)
        (other,) = await queue.receive(1, LEASE)
        queue.begin(other)

    with_queue(storage, body)
    assert storage.transactions[-1] == (["6"], False)


def test_begun_is_in_progress_to_who_looks(storage: FakeStorage) -> None:
    """Neither who sends nor who looks waits for the writer, and nobody sees it in the queue."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        await queue.send(request("a"))
        await queue.send(request("b"))
        (delivery, _) = await queue.receive(2, LEASE)
        holding = await hold(queue, storage)
        queue.begin(delivery)
        assert await queue.get("a") == Workload("a", Status.IN_PROGRESS)
        assert await queue.get("b") == Workload("b", Status.IN_QUEUE)
        assert storage.get("a") == Workload("a", Status.IN_QUEUE)
        storage.gate.set()
        await holding
        await eventually(lambda: storage.get("a") == Workload("a", Status.IN_PROGRESS))
        assert await queue.get("a") == Workload("a", Status.IN_PROGRESS)

    with_queue(storage, body)


def test_begin_that_cannot_be_written(
    storage: FakeStorage, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and nothing else; the request's end is stored all the same."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        await queue.send(request("a"))
        (delivery,) = await queue.receive(1, LEASE)
        storage.culprits = {"a"}
        queue.begin(delivery)
        await eventually(lambda: "not shown so: no room for {'a'}" in caplog.text)
        assert await queue.get("a") == Workload("a", Status.IN_QUEUE)
        storage.culprits = set()
        await queue.complete(delivery, b"{}")
        assert await queue.get("a") == Workload("a", Status.COMPLETED)

    with_queue(storage, body)


def test_refused_call_is_alone(storage: FakeStorage) -> None:
    """A lost lease or a taken id in a group is not the others' trouble."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        await queue.send(request("a", b"x"))
        stale = Delivery(request("a"), 1, 1)

        outcomes = await together(
            queue,
            storage,
            queue.send(request("b")),
            queue.send(request("a", b"y")),
            queue.complete(stale, b"{}"),
            queue.send(request("c")),
        )

        assert [type(each) for each in outcomes] == [
            type(None), DuplicateRequest, LeaseLost, type(None),
        ]  # fmt: skip
        assert len(storage.transactions) == 3
        assert await queue.depth() == Depth(3, 0)

    with_queue(storage, body)


def test_culprit_of_a_failed_group_is_alone(storage: FakeStorage) -> None:
    """When a commit fails, each call is tried by itself, and only one gets the error."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        storage.culprits = {"b"}
        outcomes = await together(queue, storage, *(queue.send(request(name)) for name in "abc"))

        assert [type(each) for each in outcomes] == [type(None), StorageFull, type(None)]
        groups = [calls for calls, _ in storage.transactions]
        assert groups == [["purge"], ["a", "b", "c"], ["a"], ["b"], ["c"]]
        assert await queue.get("b") is None
        assert await queue.depth() == Depth(2, 0)

        storage.culprits = set()
        await queue.send(request("b"))
        assert await queue.depth() == Depth(3, 0)

    with_queue(storage, body)


def test_purge_lets_others_write(storage: FakeStorage) -> None:
    """A purge in many parts does not hold up a submission until the last of them."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        holding = await hold(queue, storage)
        sending = asyncio.create_task(queue.send(request("a")))
        await asyncio.sleep(0)
        storage.gate.set()
        await holding
        while not sending.done():
            await queue.purge(0, 0)

        groups = [calls for calls, _ in storage.transactions]
        assert any("a" in group for group in groups[:4])

    with_queue(storage, body)


def test_full_until_something_ends(storage: FakeStorage) -> None:
    """Waiting and leased requests count, ended ones do not."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        for name in "ab":
            await queue.send(request(name))
        with pytest.raises(QueueFull, match="the queue holds 2 requests"):
            await queue.send(request("c"))

        first, second = await queue.receive(2, LEASE)
        with pytest.raises(QueueFull):
            await queue.send(request("c"))
        await queue.release(second, broke=True)
        with pytest.raises(QueueFull):
            await queue.send(request("c"))
        (second,) = await queue.receive(1, LEASE)

        await queue.complete(first, b"{}")
        await queue.send(request("c"))
        with pytest.raises(QueueFull):
            await queue.send(request("d"))
        await queue.fail(second, "no")
        await queue.send(request("d"))
        assert await queue.depth() == Depth(2, 0)

    with_queue(storage, body, max_length=2)


def test_full_for_those_who_come_at_once(storage: FakeStorage) -> None:
    """Requests that are not stored yet count, and those that are not stored after all do not."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        storage.culprits = {"a"}
        outcomes = await together(queue, storage, *(queue.send(request(name)) for name in "abcd"))
        assert [type(each) for each in outcomes] == [
            StorageFull, type(None), type(None), QueueFull,
        ]  # fmt: skip

        await queue.send(request("b"))  # the same again takes no room
        with pytest.raises(DuplicateRequest):
            await queue.send(request("b", b"another"))
        (delivery,) = await queue.receive(1, LEASE)
        with pytest.raises(LeaseLost):
            await queue.complete(Delivery(request("x"), 1, 1), b"{}")
        await queue.renew(delivery, LEASE)
        await queue.send(request("d"))
        with pytest.raises(QueueFull):
            await queue.send(request("e"))

    with_queue(storage, body, max_length=3)


def test_length_counts_what_was_there(storage: FakeStorage) -> None:
    """After a restart the queue is as long as it was."""

    async def first(queue: RequestQueue, signal: Signal) -> None:
        await queue.send(request("a"))

    async def second(queue: RequestQueue, signal: Signal) -> None:
        with pytest.raises(QueueFull):
            await queue.send(request("b"))

    with_queue(storage, first, max_length=1)
    with_queue(storage, second, max_length=1)


def test_callers_who_leave(storage: FakeStorage) -> None:
    """What was begun is done and signalled, though nobody waits for it."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        async def leave(call: Awaitable[None], changed: asyncio.Event) -> None:
            holding = await hold(queue, storage)
            task = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not changed.is_set()
            storage.gate.set()
            await holding

        changed = signal.listen()
        await leave(queue.send(request("a")), changed)
        await asyncio.wait_for(changed.wait(), DEADLINE)
        assert await queue.get("a") == Workload("a", Status.IN_QUEUE)

        (delivery,) = await queue.receive(1, LEASE)
        changed = signal.listen()
        await leave(queue.release(delivery, broke=True), changed)
        await asyncio.wait_for(changed.wait(), DEADLINE)
        assert await queue.get("a") == Workload("a", Status.IN_QUEUE)

        (delivery,) = await queue.receive(1, LEASE)
        await leave(queue.complete(delivery, b"{}"), asyncio.Event())
        await queue.purge(0, 0)  # behind it
        assert await queue.get("a") == Workload("a", Status.COMPLETED)
        await queue.send(request("b"))  # the only place is free

    with_queue(storage, body, max_length=1)


def test_signal_only_when_something_came(storage: FakeStorage) -> None:
    """Nobody is woken for a request that is there already, or is not stored."""

    async def body(queue: RequestQueue, signal: Signal) -> None:
        changed = signal.listen()
        await queue.send(request("a"))
        assert changed.is_set()

        changed = signal.listen()
        storage.culprits = {"b"}
        await queue.send(request("a"))
        with pytest.raises(StorageError):
            await queue.send(request("b"))
        with pytest.raises(LeaseLost):
            await queue.release(Delivery(request("a"), 1, 1), broke=True)
        assert not changed.is_set()

    with_queue(storage, body)


def test_close_finishes_what_was_begun(storage: FakeStorage) -> None:
    """Calls that were made are done and answered; later ones are refused, not forgotten."""

    async def run() -> None:
        queue = RequestQueue(storage, Signal(), 1000)
        holding = await hold(queue, storage)
        sends = [asyncio.create_task(queue.send(request(str(each)))) for each in range(GROUP + 1)]
        look = asyncio.create_task(queue.get("0"))
        await asyncio.sleep(0)
        closing = asyncio.create_task(queue.close())
        await asyncio.sleep(0)
        assert not closing.done()
        storage.gate.set()
        await closing

        await asyncio.gather(holding, look, *sends)
        assert storage.closed
        assert storage.depth() == Depth(GROUP + 1, 0)
        for call in (queue.get("0"), queue.send(request("late")), queue.receive(1, LEASE)):
            with pytest.raises(RuntimeError, match="the queue is closed"):
                await call

    asyncio.run(run())


def test_on_a_file(tmp_path: Path) -> None:
    """With the real storage: many at once, all there after a restart."""
    path = tmp_path / "queue.sqlite3"
    names = {str(number) for number in range(300)}

    async def fill() -> None:
        queue = RequestQueue(SQLiteStorage(path), Signal(), 1000)
        await asyncio.gather(*(queue.send(request(name)) for name in names))
        await queue.close()

    async def empty() -> None:
        queue = RequestQueue(SQLiteStorage(path), Signal(), 1000)
        deliveries = await queue.receive(1000, LEASE)
        assert {each.request.id for each in deliveries} == names
        await asyncio.gather(*(queue.complete(each, b"{}") for each in deliveries))
        assert await queue.depth() == Depth(0, 0)
        await queue.close()

    asyncio.run(fill())
    asyncio.run(empty())


def test_storage_that_is_locked_is_tried_once_for_a_group() -> None:
    """Every try may wait for seconds: one for each of hundreds of calls outlasts the leases."""
    storage = FakeStorage()
    begins = [0]

    def locked(*, durable: bool = True) -> contextlib.AbstractContextManager[None]:
        begins[0] += 1
        assert storage.gate.wait(DEADLINE)
        raise StorageError(f"database is locked, durable or not: {durable}")

    async def run() -> None:
        queue = RequestQueue(storage, Signal(), max_length=100)
        storage.gate.clear()
        storage.transaction = locked  # type: ignore[assignment, method-assign]
        sends = [asyncio.create_task(queue.send(request(str(number)))) for number in range(20)]
        await eventually(lambda: begins[0] == 1)
        storage.gate.set()
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert all(isinstance(outcome, StorageError) for outcome in outcomes)
        await queue.close()

    asyncio.run(run())
    assert begins[0] <= 3
