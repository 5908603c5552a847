"""The storage against a plain model: every step is refused with its own error, or does its work."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import DuplicateRequest, LeaseLost
from project.asyncapi.types import Delivery, Depth, Request, Status, Workload
from tests.helpers import FakeClock

NAMES = st.sampled_from("abcdef")
BODIES = st.sampled_from([b"", b"\x00", b"body"])
SECONDS = st.integers(1, 5).map(float)
LIMITS = st.integers(1, 4)
MEMORY = Path("/dev/shm")  # noqa: S108  (many small files; no power is lost here)
CRASHES = 2  # in one run: opening a file takes longer than all else


@dataclass
class Entry:
    """What the model knows of a request.

    Attributes:
        broken: deliveries that broke.
        lease: the delivery that holds it, if one does, and when that ends.
    """

    body: bytes
    broken: int = 0
    sent: bool = False
    lease: tuple[Delivery, float] | None = None
    ended: Workload | None = None
    ended_at: float = 0.0

    def workload(self, name: str) -> Workload:
        """What clients should see."""
        if self.ended is not None:
            return self.ended
        return Workload(name, Status.IN_PROGRESS if self.sent else Status.IN_QUEUE)


class StorageMachine(RuleBasedStateMachine):
    """Submits, leases, ends, crashes and purges in any order."""

    deliveries: Bundle[Delivery] = Bundle("deliveries")

    def __init__(self) -> None:
        super().__init__()
        self.undo = contextlib.ExitStack()
        self.clock = FakeClock()
        self.crashes = 0
        self.entries: dict[str, Entry] = {}  # in the order of arrival
        self.receipts: dict[str, set[int]] = {}

    @initialize(names=st.lists(NAMES, unique=True, min_size=2))
    def start(self, names: list[str]) -> None:
        """Begin with a few requests."""
        # Not in __init__: Hypothesis makes machines that it neither runs nor tears down.
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY if MEMORY.is_dir() else None))
        self.undo.callback(shutil.rmtree, self.folder)
        self.path = self.folder / "0" / "queue.sqlite3"
        self.open()
        self.undo.callback(lambda: self.storage.close())
        for name in names:
            self.submit(name, b"body")

    def open(self) -> None:
        """Open the file."""
        self.storage = SQLiteStorage(self.path, clock=self.clock, ticks=self.clock)

    def teardown(self) -> None:
        """Remove the file."""
        self.undo.close()

    @rule(name=NAMES, body=BODIES)
    def submit(self, name: str, body: bytes) -> None:
        """New, the same again, or the same id with another body."""
        entry = self.entries.get(name)
        request = Request(name, (("X-Name", name),), body)
        if entry is not None and entry.body != body:
            with pytest.raises(DuplicateRequest):
                self.storage.add(request)
            return
        assert self.storage.add(request) is (entry is None)
        if entry is None:
            self.entries[name] = Entry(body)
            self.receipts[name] = set()

    @rule(target=deliveries, limit=LIMITS, seconds=SECONDS)
    def lease(self, limit: int, seconds: float) -> MultipleResults[Delivery]:
        """The oldest that wait come first, those whose lease has run out among them."""
        for entry in self.entries.values():
            if entry.lease is not None and entry.lease[1] <= self.clock.now:
                entry.lease = None
        waiting = [
            name for name, each in self.entries.items() if each.ended is None and each.lease is None
        ]
        received = self.storage.receive(limit, seconds)
        assert [each.request.id for each in received] == waiting[:limit]
        for delivery in received:
            name = delivery.request.id
            entry = self.entries[name]
            entry.lease = (delivery, self.clock.now + seconds)
            assert delivery.request == Request(name, (("X-Name", name),), entry.body)
            assert delivery.receives == entry.broken + 1
            assert delivery.receipt not in self.receipts[name]
            self.receipts[name].add(delivery.receipt)
        return multiple(*received)

    @rule(seconds=SECONDS)
    def expire(self, seconds: float) -> None:
        """Time goes by."""
        self.clock.now += seconds

    @rule(delivery=deliveries, seconds=SECONDS)
    def renew(self, delivery: Delivery, seconds: float) -> None:
        """The lease ends later, or sooner."""
        entry = self.leased(delivery)
        if entry is None:
            with pytest.raises(LeaseLost):
                self.storage.renew(delivery, seconds)
        else:
            self.storage.renew(delivery, seconds)
            entry.lease = (delivery, self.clock.now + seconds)

    @rule(delivery=deliveries)
    def begin(self, delivery: Delivery) -> None:
        """It is sent, once or again."""
        entry = self.leased(delivery)
        if entry is None:
            with pytest.raises(LeaseLost):
                self.storage.begin(delivery)
        else:
            self.storage.begin(delivery)
            entry.sent = True

    @rule(delivery=deliveries, result=st.sampled_from([b"{}", b"[1]"]))
    def complete(self, delivery: Delivery, result: bytes) -> None:
        """It ends with a result, once."""
        entry = self.leased(delivery)
        if entry is None:
            with pytest.raises(LeaseLost):
                self.storage.complete(delivery, result)
        else:
            self.storage.complete(delivery, result)
            self.end(entry, Status.COMPLETED, result, None)

    @rule(delivery=deliveries)
    def fail(self, delivery: Delivery) -> None:
        """It ends without one, once."""
        entry = self.leased(delivery)
        if entry is None:
            with pytest.raises(LeaseLost):
                self.storage.fail(delivery, "no")
        else:
            self.storage.fail(delivery, "no")
            self.end(entry, Status.FAILED, None, "no")

    @rule(delivery=consumes(deliveries), broke=st.booleans())
    def release(self, delivery: Delivery, broke: bool) -> None:
        """It waits again."""
        entry = self.leased(delivery)
        if entry is None:
            with pytest.raises(LeaseLost):
                self.storage.release(delivery, broke=broke)
        else:
            self.storage.release(delivery, broke=broke)
            entry.broken += broke
            entry.lease = None

    @precondition(lambda self: self.crashes < CRASHES)
    @rule(killed=st.booleans())
    def crash(self, killed: bool) -> None:
        """Go on with the file as a kill, or an orderly end, leaves it."""
        self.crashes += 1
        if killed:
            found = self.folder / str(self.crashes) / self.path.name
            found.parent.mkdir()
            for suffix in ("", "-wal"):
                shutil.copy(f"{self.path}{suffix}", f"{found}{suffix}")
            self.path = found
        self.storage.close()
        self.open()
        for entry in self.entries.values():
            entry.lease = None

    @rule(age=st.integers(0, 10).map(float), limit=LIMITS)
    def purge(self, age: float, limit: int) -> None:
        """Of those that ended longer ago, as many as may be are gone, the oldest first."""
        ended = {name: each.ended_at for name, each in self.entries.items() if each.ended}
        old = sorted(each for each in ended.values() if each <= self.clock.now - age)

        assert self.storage.purge(age, limit) == len(old[:limit])

        gone = [name for name in ended if self.storage.get(name) is None]
        assert sorted(ended[name] for name in gone) == old[:limit]
        for name in gone:
            del self.entries[name]

    @invariant()
    def agrees(self) -> None:
        """What can be seen is what the model says."""
        for name in "abcdef":
            entry = self.entries.get(name)
            expected = None if entry is None else entry.workload(name)
            assert self.storage.get(name) == expected
        open_ = [each for each in self.entries.values() if each.ended is None]
        in_flight = sum(each.lease is not None and each.sent for each in open_)
        assert self.storage.depth() == Depth(len(open_) - in_flight, in_flight)

    def leased(self, delivery: Delivery) -> Entry | None:
        """The entry that ``delivery`` leases, if it does."""
        entry = self.entries.get(delivery.request.id)
        if entry is None or entry.lease is None or entry.lease[0].receipt != delivery.receipt:
            return None
        return entry

    def end(self, entry: Entry, status: Status, result: bytes | None, reason: str | None) -> None:
        """End the lease and the request."""
        assert entry.lease is not None
        timestamp = datetime.fromtimestamp(self.clock.now, UTC)
        name = entry.lease[0].request.id
        entry.ended = Workload(name, status, result, timestamp, reason)
        entry.ended_at = self.clock.now
        entry.lease = None


TestStorageMachine = StorageMachine.TestCase
TestStorageMachine.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
