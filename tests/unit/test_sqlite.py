"""The contract of every storage, and what only SQLite files have: crashes, damage, full disks."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from project.asyncapi.sqlite import PURGE_BYTES, SQLiteStorage
from project.asyncapi.storage import (
    DuplicateRequest,
    LeaseLost,
    Storage,
    StorageError,
    StorageFull,
)
from project.asyncapi.types import Delivery, Depth, Request, Status, Workload
from tests.helpers import DEADLINE, ROOT, FakeClock

HEADERS = (("Content-Type", "application/json"), ("X-Twice", "1"), ("X-Twice", "ü"))
LEASE = 30.0  # seconds


def request(name: str, body: bytes = b"\x00\xff") -> Request:
    """A request named ``name``."""
    return Request(name, HEADERS, body)


def known(storage: Storage, name: str) -> Workload:
    """What the storage knows of a request that it must know."""
    workload = storage.get(name)
    assert workload is not None
    return workload


def receive(storage: Storage) -> Delivery:
    """The next request, leased."""
    (delivery,) = storage.receive(1, LEASE)
    return delivery


def send(storage: Storage) -> Delivery:
    """The next request, leased and on its way to the container."""
    delivery = receive(storage)
    storage.begin(delivery)
    return delivery


def names(storage: Storage, limit: int = 100) -> list[str]:
    """The ids that are received."""
    return [each.request.id for each in storage.receive(limit, LEASE)]


def end_one(storage: Storage, name: str) -> None:
    """Add a request to an empty queue and complete it."""
    storage.add(request(name))
    storage.complete(receive(storage), b"{}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the storage is; its folder is made by it."""
    return tmp_path / "queue" / "sentiment.sqlite3"


@pytest.fixture
def clock() -> FakeClock:
    """The storage's clocks, of the day and of leases."""
    return FakeClock()


@pytest.fixture
def sqlite(path: Path, clock: FakeClock) -> Iterator[SQLiteStorage]:
    """An open, empty storage in a file."""
    storage = SQLiteStorage(path, clock=clock, ticks=clock)
    yield storage
    storage.close()


@pytest.fixture
def storage(sqlite: SQLiteStorage) -> Storage:
    """An open, empty storage of any kind."""
    return sqlite


# The contract ---------------------------------------------------------------------------------


def test_unknown_id(storage: Storage) -> None:
    """What was never added is not known."""
    assert storage.get("a") is None
    assert storage.receive(10, LEASE) == []
    assert storage.depth() == Depth(0, 0)


def test_added_is_in_queue(storage: Storage) -> None:
    """A request is in the queue as soon as it is added."""
    assert storage.add(request("a"))

    assert storage.get("a") == Workload("a", Status.IN_QUEUE)
    assert storage.depth() == Depth(queued=1, in_flight=0)


def test_age_of_the_oldest(sqlite: SQLiteStorage, clock: FakeClock) -> None:
    """It is that of the request that is sent next; what is leased ahead of time waits, too."""
    assert sqlite.depth().oldest_age_seconds == 0
    for name in "ab":
        sqlite.add(request(name))
        clock.now += 10

    assert sqlite.depth().oldest_age_seconds == 20
    first, second = sqlite.receive(2, LEASE)
    assert sqlite.depth().oldest_age_seconds == 20
    sqlite.begin(first)
    assert sqlite.depth().oldest_age_seconds == 10
    sqlite.release(second, broke=False)
    assert sqlite.depth().oldest_age_seconds == 10
    send(sqlite)
    assert sqlite.depth().oldest_age_seconds == 0


def test_receives_oldest_first_as_sent(storage: Storage) -> None:
    """Headers and bodies come back byte for byte, in the order of arrival, once."""
    for name in "cab":
        storage.add(request(name, name.encode()))

    received = storage.receive(2, LEASE)

    assert [each.request for each in received] == [request("c", b"c"), request("a", b"a")]
    assert [each.receives for each in received] == [1, 1]
    assert names(storage) == ["b"]
    assert names(storage) == []


def test_leased_is_in_queue_until_it_is_sent(storage: Storage) -> None:
    """Who looks cannot tell what is leased ahead of time from what waits."""
    storage.add(request("a"))
    storage.add(request("b"))
    first, _ = storage.receive(2, LEASE)
    assert storage.get("a") == Workload("a", Status.IN_QUEUE)
    assert storage.depth() == Depth(queued=2, in_flight=0)

    storage.begin(first)
    assert storage.get("a") == Workload("a", Status.IN_PROGRESS)
    assert storage.get("b") == Workload("b", Status.IN_QUEUE)
    assert storage.depth() == Depth(queued=1, in_flight=1)


def test_completed(storage: Storage, clock: FakeClock) -> None:
    """A result is kept with the time at which it came."""
    storage.add(request("a"))
    delivery = receive(storage)
    clock.now += 2
    storage.complete(delivery, b'{"x":1}')

    timestamp = datetime.fromtimestamp(clock.now, UTC)
    assert storage.get("a") == Workload("a", Status.COMPLETED, b'{"x":1}', timestamp)
    assert storage.depth() == Depth(0, 0)


def test_failed(storage: Storage, clock: FakeClock) -> None:
    """A failure is kept with its reason."""
    storage.add(request("a"))
    storage.fail(receive(storage), "422")

    timestamp = datetime.fromtimestamp(clock.now, UTC)
    assert storage.get("a") == Workload("a", Status.FAILED, None, timestamp, "422")
    assert storage.depth() == Depth(0, 0)


def test_released_keeps_its_place(storage: Storage) -> None:
    """What is put back comes before what is younger, counted, and was sent to who looks."""
    storage.add(request("a"))
    storage.add(request("b"))
    storage.release(send(storage), broke=True)

    assert known(storage, "a").status is Status.IN_PROGRESS
    assert known(storage, "b").status is Status.IN_QUEUE
    assert storage.depth() == Depth(queued=2, in_flight=0)
    again = receive(storage)
    assert (again.request, again.receives) == (request("a"), 2)


def test_given_back_unsent_is_as_before(storage: Storage) -> None:
    """What never reached the container is in its old place, not counted, and still in the queue."""
    storage.add(request("a"))
    storage.add(request("b"))
    storage.release(receive(storage), broke=False)

    assert known(storage, "a").status is Status.IN_QUEUE
    again = receive(storage)
    assert (again.request, again.receives) == (request("a"), 1)


def test_lease_runs_out(storage: Storage, clock: FakeClock) -> None:
    """A request that nobody ended in time is received again, at its old place, not counted."""
    storage.add(request("a"))
    storage.add(request("b"))
    first = send(storage)
    clock.now += LEASE - 1
    assert names(storage, 0) == []
    assert storage.depth() == Depth(queued=1, in_flight=1)
    clock.now += 1

    second = receive(storage)

    assert (second.request, second.receives) == (first.request, 1)
    assert second.receipt != first.receipt


def test_renewed_lease_lasts_from_now(storage: Storage, clock: FakeClock) -> None:
    """Who renews keeps the request."""
    storage.add(request("a"))
    delivery = receive(storage)
    clock.now += LEASE - 1
    storage.renew(delivery, LEASE)
    clock.now += LEASE - 1
    assert names(storage) == []

    storage.complete(delivery, b"{}")
    clock.now += LEASE
    assert names(storage) == []


STEPS: dict[str, Callable[[Storage, Delivery], None]] = {
    "renew": lambda storage, delivery: storage.renew(delivery, LEASE),
    "begin": lambda storage, delivery: storage.begin(delivery),
    "complete": lambda storage, delivery: storage.complete(delivery, b"[]"),
    "fail": lambda storage, delivery: storage.fail(delivery, "no"),
    "release": lambda storage, delivery: storage.release(delivery, broke=True),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("state", ["unknown", "released", "received", "completed", "failed"])
def test_stale_receipts_are_refused(
    storage: Storage, clock: FakeClock, state: str, step: str
) -> None:
    """Only who holds the lease can end it; nothing changes otherwise."""
    stale = Delivery(request("a"), 1, 1)
    if state != "unknown":
        storage.add(request("a"))
        stale = receive(storage)
    if state == "released":
        storage.release(stale, broke=True)
    if state == "received":
        clock.now += LEASE
        receive(storage)
    if state in {"completed", "failed"}:
        storage.complete(stale, b"{}") if state == "completed" else storage.fail(stale, "")
    before = storage.get("a"), storage.depth()

    with pytest.raises(LeaseLost, match="request 'a' is over"):
        STEPS[step](storage, stale)
    assert (storage.get("a"), storage.depth()) == before


def test_same_request_twice_is_stored_once(storage: Storage) -> None:
    """A client that asks again because it saw no answer changes nothing, whatever the state."""
    assert storage.add(request("a", b"x"))
    assert not storage.add(request("a", b"x"))
    assert names(storage) == ["a"]

    end_one(storage, "b")
    assert not storage.add(request("b"))
    assert names(storage) == []
    assert known(storage, "b").status is Status.COMPLETED


def test_same_id_with_another_body_is_refused(storage: Storage) -> None:
    """An id names one request, after its end too."""
    storage.add(request("a", b"x"))
    with pytest.raises(DuplicateRequest, match="another body, content type or query"):
        storage.add(request("a", b"y"))

    delivery = receive(storage)
    assert delivery.request.body == b"x"
    storage.complete(delivery, b"{}")
    with pytest.raises(DuplicateRequest):
        storage.add(request("a", b"y"))


@pytest.mark.parametrize("name", ["Content-Encoding", "Content-Type", "X-Envoy-Original-Path"])
def test_same_body_of_another_request_is_refused(storage: Storage, name: str) -> None:
    """What it is called, and the query, are part of what is asked; other headers are not."""
    storage.add(Request("a", (("X-Trace", "1"), (name, "/sentiment?input_text=a")), b""))

    assert not storage.add(Request("a", (("X-Trace", "2"), (name, "/sentiment?input_text=a")), b""))
    for headers in ((), ((name, "/sentiment?input_text=b"),)):
        with pytest.raises(DuplicateRequest):
            storage.add(Request("a", headers, b""))


def test_purge_by_age_and_limit(storage: Storage, clock: FakeClock) -> None:
    """What ended longest ago goes first; what has not ended stays."""
    storage.add(request("waits"))
    leased = receive(storage)
    for name in "abc":
        end_one(storage, name)
        clock.now += 10
    storage.release(leased, broke=True)

    assert storage.purge(31, 10) == 0
    assert storage.purge(20, 1) == 1
    assert [storage.get(name) is None for name in "abc"] == [True, False, False]
    assert storage.purge(20, 10) == 1
    assert storage.purge(0, 10) == 1
    assert storage.purge(0, 10) == 0
    assert names(storage) == ["waits"]
    assert storage.add(request("a", b"another"))  # a purged id is as good as new


def test_transaction_is_seen_at_its_end(storage: Storage) -> None:
    """Several calls are stored at once, and what is seen inside is what was before."""
    storage.add(request("a"))
    with storage.transaction():
        storage.add(request("b"))
        storage.complete(receive(storage), b"{}")
        assert storage.get("b") is None
        assert known(storage, "a").status is Status.IN_QUEUE

    assert known(storage, "a").status is Status.COMPLETED
    assert storage.depth() == Depth(queued=1, in_flight=0)


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("error", [StorageError, KeyboardInterrupt])
def test_transaction_that_fails_is_undone(
    storage: Storage, durable: bool, error: type[BaseException]
) -> None:
    """An error that leaves the block leaves nothing behind, and the next one works."""

    def block() -> None:
        with storage.transaction(durable=durable):
            storage.add(request("b"))
            storage.complete(receive(storage), b"{}")
            raise error("told to")

    storage.add(request("a"))
    with pytest.raises(error, match="told to"):
        block()

    assert storage.get("b") is None
    assert storage.get("a") == Workload("a", Status.IN_QUEUE)
    with storage.transaction(durable=durable):
        assert storage.add(request("b"))
    assert names(storage) == ["a", "b"]


def test_refused_call_does_not_undo_the_others(storage: Storage) -> None:
    """In a group, a lost lease and a taken id are their callers' trouble alone."""
    storage.add(request("a"))
    stale = receive(storage)
    storage.release(stale, broke=True)
    with storage.transaction():
        storage.add(request("b"))
        with pytest.raises(LeaseLost):
            storage.complete(stale, b"{}")
        with pytest.raises(DuplicateRequest):
            storage.add(request("a", b"another"))
        storage.add(request("c"))

    assert names(storage) == ["a", "b", "c"]


# SQLite: the file -----------------------------------------------------------------------------


def crash(path: Path, folder: Path) -> Path:
    """The file as it would be found if the process were killed now."""
    copy = folder / path.name
    folder.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(path.with_name(path.name + suffix), copy.with_name(copy.name + suffix))
    return copy


def test_payload_is_dropped_at_the_end(sqlite: SQLiteStorage, path: Path) -> None:
    """The file does not keep what clients sent longer than needed, nor purged results."""
    for name in "ab":
        sqlite.add(request(name))
    first, second = sqlite.receive(2, LEASE)
    sqlite.complete(first, b"{}")
    sqlite.fail(second, "no")

    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM payloads").fetchone() == (0,)
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (1,)
        sqlite.purge(0, 2)
        assert connection.execute("SELECT count(*) FROM results").fetchone() == (0,)
    connection.close()


def test_purge_gives_room_back(sqlite: SQLiteStorage, path: Path) -> None:
    """The file shrinks when what was in it is forgotten."""
    sqlite.add(request("a"))
    sqlite.complete(receive(sqlite), bytes(1_000_000))
    sqlite._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert path.stat().st_size > 1_000_000

    sqlite.purge(0, 1)
    sqlite._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert path.stat().st_size < 100_000


def test_purge_is_bounded_by_the_size_of_results(sqlite: SQLiteStorage) -> None:
    """One at least, whatever its size, and then not much more than may be in one go."""
    for size in (PURGE_BYTES + 1, PURGE_BYTES - 1, 1, 1, None, 1):
        sqlite.add(request("a"))
        if size is None:
            sqlite.fail(receive(sqlite), "no")
        else:
            sqlite.complete(receive(sqlite), bytes(size))
        sqlite._writer.execute("UPDATE requests SET id = seq")

    assert [sqlite.purge(0, 4) for _ in range(5)] == [1, 2, 3, 0, 0]


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE payloads SET headers = CAST(x'ff' AS TEXT)",
        "UPDATE payloads SET headers = '[['",
        "UPDATE payloads SET body = 'other'",
        "DELETE FROM payloads",
        "UPDATE requests SET id = CAST(x'61ff' AS TEXT)",
    ],
)
def test_damaged_row_is_told_from_sound_ones(sqlite: SQLiteStorage, damage: str) -> None:
    """It is neither computed as if it were sound, nor does it hold up those behind it."""
    sqlite.add(request("a", b"x"))
    sqlite._writer.execute(damage)
    sqlite.add(request("b", b"y"))

    first, second = sqlite.receive(2, LEASE)

    assert (first.request.id[0], first.damaged) == ("a", True)
    assert (second.request, second.damaged) == (request("b", b"y"), False)


def test_room_for_the_body_is_looked_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body is written twice, to the log and to the file: it must not eat what is kept free."""
    storage = SQLiteStorage(path, min_free_bytes=500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=520_000))

    storage.add(request("small", bytes(9_000)))
    with pytest.raises(StorageFull, match="520000 bytes are free, 522000 must be"):
        storage.add(request("large", bytes(11_000)))
    storage.close()


def test_file_that_may_not_grow_is_a_full_disk(path: Path) -> None:
    """A quota, or the largest size of a file: what is added is refused as on a full disk."""
    code = """
import pathlib, resource, sys
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageFull
from project.asyncapi.types import Request
storage = SQLiteStorage(pathlib.Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
storage.add(Request("small", (), b""))
try:
    storage.add(Request("large", (), bytes(1 << 20)))
except StorageFull as error:
    print(error)
print(storage.depth().queued)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "disk I/O error\n1\n"


@pytest.mark.parametrize("killed", [True, False])
def test_reopened(sqlite: SQLiteStorage, path: Path, tmp_path: Path, killed: bool) -> None:
    """Everything is there after a restart; what was leased waits again, not counted."""
    for name in "abcd":
        sqlite.add(request(name))
    first, second, third, _ = sqlite.receive(4, LEASE)
    sqlite.complete(first, b"{}")
    sqlite.begin(second)
    sqlite.release(second, broke=True)
    sqlite.begin(third)
    if killed:
        path = crash(path, tmp_path / "crashed")
    else:
        sqlite.close()

    storage = SQLiteStorage(path)
    statuses = [known(storage, name).status for name in "abcd"]
    assert statuses == ["completed", "in_progress", "in_progress", "in_queue"]
    assert storage.depth() == Depth(queued=3, in_flight=0)
    with pytest.raises(LeaseLost):
        storage.complete(second, b"{}")
    received = [(each.request, each.receives) for each in storage.receive(5, LEASE)]
    assert received == [(request("b"), 2), (request("c"), 1), (request("d"), 1)]
    storage.close()


def test_calls_wait_for_the_disk_after_one_that_did_not(sqlite: SQLiteStorage) -> None:
    """A lease that need not be durable does not make what follows less so."""

    def level() -> int:
        found: int = sqlite._writer.execute("PRAGMA synchronous").fetchone()[0]
        return found

    with sqlite.transaction(durable=False):
        assert level() == 1
    with sqlite.transaction():
        assert level() == 2
    with sqlite.transaction(durable=False):
        assert level() == 1
    sqlite.add(request("a"))
    assert level() == 2


def test_leases_outlive_a_clock_that_is_set(path: Path, clock: FakeClock) -> None:
    """What is being computed is not sent again because the time of day has jumped."""
    storage = SQLiteStorage(path, clock=clock, ticks=FakeClock())
    storage.add(request("a"))
    delivery = receive(storage)
    clock.now += 3600

    assert names(storage) == []
    storage.complete(delivery, b"{}")
    storage.close()


def test_one_owner_at_a_time(sqlite: SQLiteStorage, path: Path) -> None:
    """A second runtime on the same file is refused: it would send requests twice."""
    with pytest.raises(StorageError, match="another AsyncAPI is running"):
        SQLiteStorage(path)
    sqlite.close()
    SQLiteStorage(path).close()


def test_newer_schema_is_refused(path: Path) -> None:
    """A file of a later version is not misread, and not taken for damaged."""
    SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()

    for _ in range(2):  # the refusal lets go of the file
        with pytest.raises(StorageError, match="has schema 99"):
            SQLiteStorage(path)
    assert path.read_bytes() == before


def test_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """A path that cannot be is an error of ours."""
    (tmp_path / "file").touch()

    with pytest.raises(StorageError, match="file"):
        SQLiteStorage(tmp_path / "file" / "queue.sqlite3")


# SQLite: damage -------------------------------------------------------------------------------

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "truncated in a page": lambda data: data[: len(data) - 5000],
    "emptied": lambda _: b"",
    "overwritten pages": lambda data: data[:8192] + os.urandom(40960) + data[49152:],
    "zeroed pages": lambda data: data[:4096] + bytes(len(data) - 4096),
    "overwritten header": lambda data: bytes(100) + data[100:],
    "garbage": lambda _: b"not a database, but long enough to be one" * 100,
}


def check_set_aside(path: Path, left: dict[str, bytes], caplog: pytest.LogCaptureFixture) -> None:
    """Opening ``path`` begins a new queue, says so, and keeps what was ``left``, by suffix."""
    with caplog.at_level(logging.ERROR):
        storage = SQLiteStorage(path)
    (record,) = caplog.records
    assert f"{path} is damaged" in record.getMessage()
    kept = str(record.getMessage()).split("kept as ")[1].split(",")[0]
    assert {
        each.name.removeprefix(kept): each.read_bytes()
        for each in path.parent.glob(kept + "*")
        if not each.name.endswith("-shm") and (each.name == kept or each.stat().st_size)
    } == left
    assert storage.depth() == Depth(0, 0)
    storage.add(request("new"))
    storage.close()

    caplog.clear()
    storage = SQLiteStorage(path)
    assert names(storage) == ["new"]
    assert not caplog.records
    storage.close()


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_file_is_set_aside(
    path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What cannot be read is kept as it was found, named in the log, and a new queue begun."""
    storage = SQLiteStorage(path)
    for number in range(50):
        storage.add(request(str(number), os.urandom(5000)))
    storage.close()
    damaged = DAMAGE[damage](path.read_bytes())
    path.write_bytes(damaged)

    check_set_aside(path, {"": damaged}, caplog)


@pytest.mark.parametrize("damage", ["emptied", "missing", "garbage", "zeroed pages"])
def test_log_beside_a_damaged_file_is_kept(
    sqlite: SQLiteStorage,
    path: Path,
    tmp_path: Path,
    damage: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Acknowledged requests may be in the write-ahead log alone: it is neither lost nor touched."""
    for number in range(50):
        sqlite.add(request(str(number), os.urandom(5000)))
    sqlite._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    sqlite.add(request("late"))  # begins the log anew, on one page of many
    path = crash(path, tmp_path / "crashed")
    log = path.with_name(path.name + "-wal")
    left = {"-wal": log.read_bytes()}
    if damage == "missing":
        path.unlink()
    else:
        left[""] = DAMAGE[damage](path.read_bytes())
        path.write_bytes(left[""])
    assert left["-wal"]

    check_set_aside(path, left, caplog)


# SQLite: full disks ---------------------------------------------------------------------------


def fill(storage: SQLiteStorage) -> list[str]:
    """Add requests until there is no room; returns the ids that were acknowledged."""
    added: list[str] = []

    def add_for_ever() -> None:
        while True:
            name = str(len(added))
            storage.add(request(name, os.urandom(5000)))
            added.append(name)

    with pytest.raises(StorageFull):
        add_for_ever()
    return added


def test_full_disk(sqlite: SQLiteStorage, path: Path, tmp_path: Path) -> None:
    """New work is refused, running work ends and makes room, nothing acknowledged is lost."""
    sqlite._writer.execute("PRAGMA max_page_count = 200").fetchall()
    added = fill(sqlite)
    assert len(added) > 50
    assert sqlite.depth() == Depth(len(added), 0)

    deliveries = sqlite.receive(10, LEASE)
    for delivery in deliveries:
        sqlite.complete(delivery, b"{}")
    assert sqlite.add(request("after"))

    storage = SQLiteStorage(crash(path, tmp_path / "crashed"))
    assert [known(storage, each).status for each in added[:10]] == ["completed"] * 10
    assert names(storage, 1000) == [*added[10:], "after"]
    storage.close()


def test_full_disk_undoes_the_transaction(sqlite: SQLiteStorage) -> None:
    """Of a group that does not fit, nothing is stored, and smaller ones still are."""
    sqlite._writer.execute("PRAGMA max_page_count = 200").fetchall()

    def add_both() -> None:
        with sqlite.transaction():
            sqlite.add(request("small"))
            sqlite.add(request("large", bytes(1_000_000)))

    with pytest.raises(StorageFull):
        add_both()

    assert sqlite.get("small") is None
    with sqlite.transaction():
        assert sqlite.add(request("small"))
    assert names(sqlite) == ["small"]


def test_little_room_is_kept_for_running_work(path: Path) -> None:
    """Under the least free space nothing new is stored, and what is there still ends."""
    storage = SQLiteStorage(path)
    for name in "abc":
        storage.add(request(name))
    storage.close()

    storage = SQLiteStorage(path, min_free_bytes=2**62)
    with pytest.raises(StorageFull, match=f"bytes are free, {2**62 + 4} must be"):
        storage.add(request("d"))
    first, second, third = storage.receive(3, LEASE)
    storage.complete(first, b"{}")
    storage.fail(second, "no")
    storage.renew(third, LEASE)
    storage.begin(third)
    storage.release(third, broke=True)
    assert [known(storage, name).status for name in "abc"] == ["completed", "failed", "in_progress"]
    assert storage.purge(0, 2) == 2
    storage.close()


def test_room_in_the_file_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has ended makes room for new work though the file does not shrink at once."""
    storage = SQLiteStorage(path, min_free_bytes=500_000)
    storage.add(request("large", bytes(1_000_000)))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(StorageFull, match="100000 bytes are free, 500004 must be"):
        storage.add(request("next"))

    storage.complete(receive(storage), b"{}")

    assert storage.add(request("next"))
    storage.close()


FILL_UNTIL_THE_LIMIT = """
import os, resource, sys
from pathlib import Path
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError
from project.asyncapi.types import Request

storage = SQLiteStorage(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
for number in range(1000):
    try:
        storage.add(Request(str(number), (), os.urandom(5000)))
    except StorageError:
        break
    print(number, flush=True)
os._exit(7)
"""


def test_writes_that_fail_lose_nothing(path: Path) -> None:
    """When the system refuses to write, what was acknowledged before is there afterwards."""
    process = subprocess.run(
        [sys.executable, "-c", FILL_UNTIL_THE_LIMIT, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert process.returncode == 7, process.stderr
    added = process.stdout.split()
    assert 20 < len(added) < 1000

    storage = SQLiteStorage(path)
    assert names(storage, 1000) == added
    storage.close()
