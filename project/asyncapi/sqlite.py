"""The storage in one SQLite file, durable with every commit (WAL, full synchronisation)."""

from __future__ import annotations

import contextlib
import fcntl
import json
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from project.asyncapi.storage import IllegalTransition, StorageError
from project.asyncapi.types import Delivery, Request, Status, Workload

SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL,
    receives INTEGER NOT NULL DEFAULT 0,
    headers TEXT NOT NULL,
    body BLOB,
    result BLOB,
    reason TEXT,
    ended_at TEXT
);
CREATE INDEX requests_in_queue ON requests (seq) WHERE status = 'in_queue';
"""
RECEIVE = """
UPDATE requests SET status = 'in_progress', receives = receives + 1
WHERE seq IN (SELECT seq FROM requests WHERE status = 'in_queue' ORDER BY seq LIMIT ?)
RETURNING seq, id, headers, body, receives
"""
# Not counted as a receive: that the whole runtime stopped is no fault of the request's.
RECOVER = """
UPDATE requests SET status = 'in_queue', receives = receives - 1 WHERE status = 'in_progress'
"""
END = """
UPDATE requests SET status = ?, result = ?, reason = ?, ended_at = ?, body = NULL
WHERE id = ? AND status = 'in_progress'
"""
RELEASE = "UPDATE requests SET status = 'in_queue' WHERE id = ? AND status = 'in_progress'"
GET = "SELECT id, status, result, ended_at, reason FROM requests WHERE id = ?"


class SQLiteStorage:
    """A :class:`~project.asyncapi.storage.Storage` in a file that one process owns at a time.

    What an earlier owner had in progress when it died is back in the queue once this is open.

    Raises:
        StorageError: another process owns the file, or it is no database of this version.
    """

    def __init__(self, path: Path) -> None:
        self._lock = _lock(path.with_name(path.name + ".lock"))
        with contextlib.ExitStack() as undo, _storage_errors(path):
            undo.callback(self._lock.close)
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            undo.callback(self._connection.close)
            self._prepare(path)
            undo.pop_all()

    def _prepare(self, path: Path) -> None:
        connection = self._connection
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            connection.executescript(
                f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
            )
        elif version != SCHEMA_VERSION:
            raise StorageError(f"{path}: has schema {version}, this version reads {SCHEMA_VERSION}")
        connection.execute(RECOVER)

    def add(self, request: Request) -> None:
        """See :meth:`Storage.add`; an id that is already there is refused."""
        self._execute(
            "INSERT INTO requests (id, status, headers, body) VALUES (?, 'in_queue', ?, ?)",
            (request.id, json.dumps(request.headers), request.body),
        )

    def receive(self, limit: int) -> list[Delivery]:
        """See :meth:`Storage.receive`."""
        rows = sorted(self._execute(RECEIVE, (limit,)).fetchall())
        return [
            Delivery(Request(request_id, _headers(headers), body), receives)
            for _, request_id, headers, body, receives in rows
        ]

    def complete(self, request_id: str, result: bytes) -> None:
        """See :meth:`Storage.complete`."""
        self._step(END, (Status.COMPLETED, result, None, _now(), request_id))

    def fail(self, request_id: str, reason: str) -> None:
        """See :meth:`Storage.fail`."""
        self._step(END, (Status.FAILED, None, reason, _now(), request_id))

    def release(self, request_id: str) -> None:
        """See :meth:`Storage.release`."""
        self._step(RELEASE, (request_id,))

    def get(self, request_id: str) -> Workload | None:
        """See :meth:`Storage.get`."""
        row = self._execute(GET, (request_id,)).fetchone()
        if row is None:
            return None
        found, status, result, ended_at, reason = row
        timestamp = None if ended_at is None else datetime.fromisoformat(ended_at)
        return Workload(found, Status(status), result, timestamp, reason)

    def close(self) -> None:
        """See :meth:`Storage.close`."""
        self._connection.close()
        self._lock.close()

    def _step(self, statement: str, values: tuple[Any, ...]) -> None:
        if self._execute(statement, values).rowcount != 1:
            raise IllegalTransition(f"request {values[-1]!r} is not in progress")

    def _execute(self, statement: str, values: tuple[Any, ...]) -> sqlite3.Cursor:
        with _storage_errors():
            return self._connection.execute(statement, values)


def _lock(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise StorageError(str(error)) from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StorageError(f"{path}: another AsyncAPI is running with this storage") from error
    return file


@contextlib.contextmanager
def _storage_errors(path: Path | None = None) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise StorageError(f"{path}: {error}" if path else str(error)) from error


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text))


def _now() -> str:
    return datetime.now(UTC).isoformat()
