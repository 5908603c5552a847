"""The storage's contract, on SQLite files."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import IllegalTransition, Storage, StorageError
from project.asyncapi.types import Delivery, Request, Status, Workload

HEADERS = (("Content-Type", "application/json"), ("X-Twice", "1"), ("X-Twice", "ü"))


def request(name: str, body: bytes = b"\x00\xff") -> Request:
    """A request named ``name``."""
    return Request(name, HEADERS, body)


def known(storage: Storage, name: str) -> Workload:
    """What the storage knows of a request that it must know."""
    workload = storage.get(name)
    assert workload is not None
    return workload


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the storage is; its folder is made by it."""
    return tmp_path / "queue" / "sentiment.sqlite3"


@pytest.fixture
def storage(path: Path) -> Iterator[SQLiteStorage]:
    """An open, empty storage."""
    storage = SQLiteStorage(path)
    yield storage
    storage.close()


def test_unknown_id(storage: Storage) -> None:
    """What was never added is not known."""
    assert storage.get("a") is None
    assert storage.receive(10) == []


def test_added_is_in_queue(storage: Storage) -> None:
    """A request is in the queue as soon as it is added."""
    storage.add(request("a"))

    assert storage.get("a") == Workload("a", Status.IN_QUEUE)


def test_receives_oldest_first_as_sent(storage: Storage) -> None:
    """Headers and bodies come back byte for byte, in the order of arrival, once."""
    for name in "cab":
        storage.add(request(name, name.encode()))

    assert storage.receive(2) == [
        Delivery(request("c", b"c"), 1),
        Delivery(request("a", b"a"), 1),
    ]
    assert [each.request.id for each in storage.receive(2)] == ["b"]
    assert storage.receive(2) == []
    assert known(storage, "a").status is Status.IN_PROGRESS


def test_completed(storage: Storage) -> None:
    """A result is kept with the time at which it came."""
    storage.add(request("a"))
    storage.receive(1)
    storage.complete("a", b'{"x":1}')

    workload = known(storage, "a")
    assert (workload.status, workload.result) == (Status.COMPLETED, b'{"x":1}')
    assert workload.timestamp is not None
    assert abs(datetime.now(UTC) - workload.timestamp) < timedelta(minutes=1)


def test_failed(storage: Storage) -> None:
    """A failure is kept with its reason."""
    storage.add(request("a"))
    storage.receive(1)
    storage.fail("a", "422")

    workload = known(storage, "a")
    assert (workload.status, workload.result) == (Status.FAILED, None)
    assert workload.reason == "422"


def test_released_keeps_its_place(storage: Storage) -> None:
    """What is put back is received before what came later, and counted."""
    storage.add(request("a"))
    storage.add(request("b"))
    storage.receive(1)
    storage.release("a")

    assert known(storage, "a").status is Status.IN_QUEUE
    assert storage.receive(1) == [Delivery(request("a"), 2)]


def test_payload_is_dropped_at_the_end(storage: Storage, path: Path) -> None:
    """The file does not keep what clients sent longer than needed."""
    storage.add(request("a", b"secret"))
    storage.receive(1)
    storage.complete("a", b"{}")

    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT body FROM requests").fetchall()
    connection.close()
    assert rows == [(None,)]


@pytest.mark.parametrize("state", ["unknown", "in_queue", "completed", "failed"])
def test_illegal_steps_are_refused(storage: Storage, state: str) -> None:
    """Only what is in progress can end or be put back; nothing changes otherwise."""
    if state != "unknown":
        storage.add(request("a"))
    if state in {"completed", "failed"}:
        storage.receive(1)
        storage.complete("a", b"{}") if state == "completed" else storage.fail("a", "")
    before = storage.get("a")

    steps: list[Callable[[], None]] = [
        lambda: storage.complete("a", b"[]"),
        lambda: storage.fail("a", "no"),
        lambda: storage.release("a"),
    ]
    for step in steps:
        with pytest.raises(IllegalTransition, match="'a' is not in progress"):
            step()
    assert storage.get("a") == before


def test_same_id_twice_is_refused(storage: Storage) -> None:
    """An id names one request."""
    storage.add(request("a"))

    with pytest.raises(StorageError, match="UNIQUE"):
        storage.add(request("a"))


def test_reopened(path: Path) -> None:
    """Everything is there after a restart; what was in progress waits again, not counted."""
    storage = SQLiteStorage(path)
    for name in "abc":
        storage.add(request(name))
    storage.receive(2)
    storage.complete("a", b"{}")
    storage.close()

    storage = SQLiteStorage(path)
    assert [known(storage, name).status for name in "abc"] == ["completed", "in_queue", "in_queue"]
    assert storage.receive(5) == [Delivery(request("b"), 1), Delivery(request("c"), 1)]
    storage.close()


def test_one_owner_at_a_time(storage: Storage, path: Path) -> None:
    """A second runtime on the same file is refused: it would send requests twice."""
    with pytest.raises(StorageError, match="another AsyncAPI is running"):
        SQLiteStorage(path)


def test_foreign_file_is_left_alone(path: Path) -> None:
    """A file that is no database is named and not touched."""
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be one" * 100)

    with pytest.raises(StorageError, match="not a database"):
        SQLiteStorage(path)
    assert path.read_bytes().startswith(b"not a database")


def test_newer_schema_is_refused(path: Path) -> None:
    """A file of a later version is not misread."""
    SQLiteStorage(path).close()
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 99")
    connection.close()

    with pytest.raises(StorageError, match="has schema 99"):
        SQLiteStorage(path)
