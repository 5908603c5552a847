"""The storage in one SQLite file, durable with every commit (WAL, full synchronisation)."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from project.asyncapi.storage import DuplicateRequest, LeaseLost, StorageError, StorageFull
from project.asyncapi.types import Delivery, Depth, Request, Status, Workload

logger = logging.getLogger(__name__)

JOURNAL_BYTES = 64 * 1024 * 1024
"""What is left of the write-ahead log after a burst."""

CHECKPOINT_PAGES = 4096
"""Of 4 KiB, in the write-ahead log before they go to the file: a page that many requests change,
as those of the indexes are, is then written there once."""

CACHE_KIBIBYTES = 16 * 1024
"""The writer's: ids that clients bring are in no order, each on another page of their index."""

PURGE_BYTES = 8 << 20
"""Of results, after which a purge ends: it is written to the log, with the writer held up."""

VACUUM_PAGES = 250
"""Pages of 4 KiB that a purge gives back at most, so that it does not hold up the writer."""

TELLING = frozenset({"Content-Encoding", "Content-Type", "X-Envoy-Original-Path"})
"""Header fields that say, with the body, what is asked; the path has the query."""

NO_ROOM = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE})
"""SQLite tells a full disk from other errors of a write, but not a quota or the largest file."""

SCHEMA_VERSION = 4
# Payloads and results are apart: SQLite rewrites a whole row with every change of its status.
# `status` is what clients see, `lease_until` whether a dequeuer has it: what is leased is in_queue
# until it is sent, and what was sent once stays in_progress while it waits to be sent again.
# `receives` counts the deliveries that broke.
SCHEMA = """
CREATE TABLE requests (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    digest BLOB NOT NULL,
    status TEXT NOT NULL,
    added_at REAL NOT NULL,
    receives INTEGER NOT NULL DEFAULT 0,
    receipt INTEGER NOT NULL DEFAULT 0,
    lease_until REAL,
    ended_at REAL,
    reason TEXT
);
CREATE INDEX requests_waiting ON requests (seq) WHERE lease_until IS NULL AND ended_at IS NULL;
CREATE INDEX requests_leased ON requests (lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX requests_ended ON requests (ended_at) WHERE ended_at IS NOT NULL;
CREATE TABLE payloads (seq INTEGER PRIMARY KEY, headers TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE results (seq INTEGER PRIMARY KEY, result BLOB NOT NULL);
"""
# Neither counts as a delivery that broke: that the runtime stopped is no fault of the request's.
RECOVER = "UPDATE requests SET lease_until = NULL WHERE lease_until IS NOT NULL"
EXPIRE = "UPDATE requests SET lease_until = NULL WHERE lease_until <= ? RETURNING CAST(id AS BLOB)"
ADD = """
INSERT INTO requests (id, digest, status, added_at) VALUES (?, ?, 'in_queue', ?)
ON CONFLICT DO NOTHING RETURNING seq
"""
ADD_PAYLOAD = "INSERT INTO payloads (seq, headers, body) VALUES (?, ?, ?)"
RECEIVE = """
UPDATE requests SET receipt = receipt + 1, lease_until = ?
WHERE seq IN (
    SELECT seq FROM requests WHERE lease_until IS NULL AND ended_at IS NULL ORDER BY seq LIMIT ?
)
RETURNING seq, CAST(id AS BLOB), receives + 1, receipt, digest,
    (SELECT CAST(headers AS BLOB) FROM payloads WHERE payloads.seq = requests.seq),
    (SELECT body FROM payloads WHERE payloads.seq = requests.seq)
"""
RENEW = """
UPDATE requests SET lease_until = ?
WHERE id = ? AND receipt = ? AND lease_until IS NOT NULL RETURNING seq
"""
BEGIN = """
UPDATE requests SET status = 'in_progress'
WHERE id = ? AND receipt = ? AND lease_until IS NOT NULL RETURNING seq
"""
RELEASE = """
UPDATE requests SET receives = receives + ?, lease_until = NULL
WHERE id = ? AND receipt = ? AND lease_until IS NOT NULL RETURNING seq
"""
END = """
UPDATE requests SET status = ?, reason = ?, ended_at = ?, lease_until = NULL
WHERE id = ? AND receipt = ? AND lease_until IS NOT NULL RETURNING seq
"""
GET = """
SELECT id, status, result, ended_at, reason FROM requests LEFT JOIN results USING (seq) WHERE id = ?
"""
DEPTH = """
SELECT (SELECT count(*) FROM requests WHERE lease_until IS NULL AND ended_at IS NULL)
        + count(*) FILTER (WHERE status = 'in_queue'),
    count(*) FILTER (WHERE status = 'in_progress'),
    coalesce(
        min(added_at) FILTER (WHERE status = 'in_queue'),
        (SELECT added_at FROM requests
         WHERE lease_until IS NULL AND ended_at IS NULL ORDER BY seq LIMIT 1)
    )
FROM requests WHERE lease_until IS NOT NULL
"""
FREE_BYTES = """
SELECT freelist_count * page_size FROM pragma_freelist_count(), pragma_page_size()
"""
# One at least, and others as long as the results before them are not large.
PURGE = """
DELETE FROM requests WHERE seq IN (
    SELECT seq FROM (
        SELECT seq, sum(length(result)) OVER (
            ORDER BY ended_at, seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before
        FROM (
            SELECT seq, ended_at FROM requests WHERE ended_at <= ? ORDER BY ended_at, seq LIMIT ?
        ) LEFT JOIN results USING (seq)
    ) WHERE ifnull(before, 0) < ?
) RETURNING seq
"""


class SQLiteStorage:
    """A :class:`~project.asyncapi.storage.Storage` in a file that one process owns at a time.

    What an earlier owner had leased when it died is back in the queue once this is open. A file
    that is damaged is set aside, as ``<name>.damaged-<time>``, and a new one begun.

    Args:
        min_free_bytes: of the file system; with less, nothing new is stored.
        clock: the time of day in seconds, of what has ended.
        ticks: seconds that no adjustment of the clock changes, for leases.

    Raises:
        StorageError: another process owns the file, or it is no database of this version.
    """

    def __init__(
        self,
        path: Path,
        min_free_bytes: int = 0,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = path.parent
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._ticks = ticks
        self._lock = _lock(path.with_name(path.name + ".lock"))
        with contextlib.ExitStack() as undo, _storage_errors(path):
            undo.callback(self._lock.close)
            _set_aside_if_damaged(path)
            self._writer = _connect(path)
            undo.callback(self._writer.close)
            self._durable = True
            _prepare(self._writer, path)
            self._reader = _connect(path)
            undo.pop_all()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """See :meth:`Storage.transaction`."""
        with _storage_errors():
            self._synchronize(durable=durable)
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:  # SQLite ends it by itself when the disk is full
                    self._writer.execute("ROLLBACK")
                raise

    def add(self, request: Request) -> bool:
        """See :meth:`Storage.add`."""
        self._check_room(len(request.body))
        values = request.id, _digest(request), self._clock()
        with self._step():
            added = self._writer.execute(ADD, values).fetchone()
            if added is None:
                self._check_same(request)
                return False
            headers = json.dumps(request.headers)
            self._writer.execute(ADD_PAYLOAD, (*added, headers, request.body))
        return True

    def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """See :meth:`Storage.receive`."""
        now = self._ticks()
        with self._step():
            for (request_id,) in self._writer.execute(EXPIRE, (now,)).fetchall():
                logger.warning("its lease has run out", extra={"id": _name(request_id)})
            rows = self._writer.execute(RECEIVE, (now + lease_seconds, limit)).fetchall()
        return [_delivery(*row) for _, *row in sorted(rows)]

    def renew(self, delivery: Delivery, lease_seconds: float) -> None:
        """See :meth:`Storage.renew`."""
        with self._step():
            self._leased(RENEW, delivery, self._ticks() + lease_seconds)

    def begin(self, delivery: Delivery) -> None:
        """See :meth:`Storage.begin`."""
        with self._step():
            self._leased(BEGIN, delivery)

    def complete(self, delivery: Delivery, result: bytes) -> None:
        """See :meth:`Storage.complete`."""
        with self._step():
            seq = self._end(delivery, Status.COMPLETED, None)
            self._writer.execute("INSERT INTO results (seq, result) VALUES (?, ?)", (seq, result))

    def fail(self, delivery: Delivery, reason: str) -> None:
        """See :meth:`Storage.fail`."""
        with self._step():
            self._end(delivery, Status.FAILED, reason)

    def release(self, delivery: Delivery, *, broke: bool) -> None:
        """See :meth:`Storage.release`."""
        with self._step():
            self._leased(RELEASE, delivery, int(broke))

    def get(self, request_id: str) -> Workload | None:
        """See :meth:`Storage.get`."""
        with _storage_errors():
            row = self._reader.execute(GET, (request_id,)).fetchone()
        if row is None:
            return None
        found, status, result, ended_at, reason = row
        timestamp = None if ended_at is None else datetime.fromtimestamp(ended_at, UTC)
        return Workload(found, Status(status), result, timestamp, reason)

    def depth(self) -> Depth:
        """See :meth:`Storage.depth`."""
        with _storage_errors():
            queued, in_flight, oldest = self._reader.execute(DEPTH).fetchone()
        age = 0.0 if oldest is None else max(0.0, self._clock() - oldest)
        return Depth(queued, in_flight, age)

    def purge(self, age_seconds: float, limit: int) -> int:
        """See :meth:`Storage.purge`; the room is given back to the file system bit by bit."""
        with self._step():
            purged = self._writer.execute(
                PURGE, (self._clock() - age_seconds, limit, PURGE_BYTES)
            ).fetchall()
            self._writer.executemany("DELETE FROM results WHERE seq = ?", purged)
            (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            for _ in range(min(free, VACUUM_PAGES)):
                # One by one: sqlite3 steps this pragma once, whatever number it is given.
                self._writer.execute("PRAGMA incremental_vacuum(1)")
        return len(purged)

    def close(self) -> None:
        """See :meth:`Storage.close`."""
        self._reader.close()
        self._writer.close()
        self._lock.close()

    def _step(self) -> AbstractContextManager[object]:
        """All of a call or nothing of it: in the transaction that there is, or in its own."""
        inside = self._writer.in_transaction
        return contextlib.nullcontext() if inside else self.transaction()

    def _synchronize(self, *, durable: bool) -> None:
        """Whether the next commit waits for the disk; one that does makes safe those before it."""
        if durable is not self._durable:
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _check_room(self, size: int) -> None:
        needed = self._min_free_bytes + 2 * size  # a body is written to the log, then to the file
        free = shutil.disk_usage(self._folder).free
        if free < needed:  # what has ended leaves room in the file, too
            free += self._writer.execute(FREE_BYTES).fetchone()[0]
        if free < needed:
            raise StorageFull(f"{free} bytes are free, {needed} must be")

    def _check_same(self, request: Request) -> None:
        known = self._writer.execute("SELECT digest FROM requests WHERE id = ?", (request.id,))
        if known.fetchone()[0] != _digest(request):
            raise DuplicateRequest(
                f"id {request.id} was submitted before, with another body, content type or query"
            )

    def _end(self, delivery: Delivery, status: Status, reason: str | None) -> int:
        seq = self._leased(END, delivery, status.value, reason, self._clock())
        self._writer.execute("DELETE FROM payloads WHERE seq = ?", (seq,))
        return seq

    def _leased(self, statement: str, delivery: Delivery, *values: str | float | None) -> int:
        """Run a statement on the row that ``delivery`` leases; returns its ``seq``."""
        request_id = delivery.request.id
        row = self._writer.execute(statement, (*values, request_id, delivery.receipt)).fetchall()
        if not row:
            raise LeaseLost(f"the lease {delivery.receipt} of request {request_id!r} is over")
        seq: int = row[0][0]
        return seq


def _digest(request: Request) -> bytes:
    """Of what the container computes the result from."""
    told = [field for field in request.headers if field[0] in TELLING]
    return hashlib.sha256(json.dumps(told).encode() + request.body).digest()


def _name(raw_id: bytes) -> str:
    return raw_id.decode(errors="replace")


def _delivery(
    raw_id: bytes, receives: int, receipt: int, digest: bytes, headers: bytes, body: bytes
) -> Delivery:
    """SQLite does not see what a file lost: it must neither be computed nor hold up the rest."""
    request_id = _name(raw_id)
    try:
        raw_id.decode()
        pairs = tuple((name, value) for name, value in json.loads(headers))
        request = Request(request_id, pairs, body)
        damaged = _digest(request) != digest
    except (TypeError, ValueError):
        request, damaged = Request(request_id, (), b""), True
    return Delivery(request, receives, receipt, damaged)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version not in {0, SCHEMA_VERSION}:
        raise StorageError(
            f"{path}: has schema {version}, this version reads {SCHEMA_VERSION}; move it away, "
            "or finish its requests with the version that wrote it"
        )
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of effect in a new file only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA cache_size = {-CACHE_KIBIBYTES}")
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    if recovered := connection.execute(RECOVER).rowcount:
        logger.info("%s: %d requests that were leased wait again", path, recovered)


def _set_aside_if_damaged(path: Path) -> None:
    problem = _damage(path)
    if problem is None:
        return
    suffix = datetime.now(UTC).strftime(".damaged-%Y%m%dT%H%M%S.%fZ")
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        if each.exists():
            each.rename(each.with_name(each.name.replace(path.name, path.name + suffix, 1)))
    logger.error(
        "%s is damaged (%s): its requests are not served; it is kept as %s, and a new queue begun",
        path, problem, path.name + suffix,
    )  # fmt: skip


def _damage(path: Path) -> str | None:
    """What is wrong with the file, if it is there and no sound database."""
    if not path.exists() or path.stat().st_size == 0:
        # SQLite would take either for a new database, and delete the log that is left.
        left = path.exists() or path.with_name(path.name + "-wal").exists()
        return "it is empty or missing" if left else None
    # Read only: closing it must not write the log into a file that is damaged.
    uri = f"{path.absolute().as_uri()}?mode=ro"
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:  # unreadable, not damaged: said when it is opened
        return None
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if verdict == "ok" else str(verdict)


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
        full = getattr(error, "sqlite_errorcode", None) in NO_ROOM
        text = f"{path}: {error}" if path else str(error)
        raise (StorageFull if full else StorageError)(text) from error
