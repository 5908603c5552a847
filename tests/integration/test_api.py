"""One API as a whole: what goes on beside its requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from project.asyncapi import api
from project.asyncapi.api import Limits, LocalAPI
from project.asyncapi.config import read_config
from project.asyncapi.dequeuer import Policy
from project.asyncapi.metrics import Metrics
from project.asyncapi.replica import Placement
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError, StorageFull
from project.asyncapi.waiting import Signal
from tests.helpers import eventually, free_port


def test_purge_that_fails_is_tried_again(
    cortex_yaml: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full when old results should go ends nothing else."""
    monkeypatch.setattr(api, "PURGE_PERIOD_SECONDS", 0.0)
    errors: list[StorageError] = [StorageFull("no room"), StorageError("no disk")]
    purged: list[tuple[float, int]] = []

    def purge(self: SQLiteStorage, age_seconds: float, limit: int) -> int:
        if errors:
            raise errors.pop()
        purged.append((age_seconds, limit))
        return 0

    monkeypatch.setattr(SQLiteStorage, "purge", purge)

    async def run() -> None:
        async with running(cortex_yaml, Limits(retention_seconds=7.0)) as tasks:
            await eventually(lambda: len(purged) > 1)
            assert not any(task.done() for task in tasks)

    asyncio.run(run())
    assert purged[0] == (7.0, api.PURGE_LIMIT)
    assert "cannot be purged yet: no room" in caplog.text


def test_clock_that_jumps_makes_nothing_old(
    cortex_yaml: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine learns the time of day when it is on the net: results of before keep theirs."""
    monkeypatch.setattr(api, "PURGE_PERIOD_SECONDS", 0.0)
    jumps = iter([0.0, 0.0])
    monkeypatch.setattr(api, "_clock_ahead", lambda: next(jumps, 20.0))
    purged: list[bool] = []

    def purge(self: SQLiteStorage, age_seconds: float, limit: int) -> int:
        purged.append("20 s ahead" in caplog.text)
        return 0

    monkeypatch.setattr(SQLiteStorage, "purge", purge)

    async def run() -> None:
        async with running(cortex_yaml, Limits(retention_seconds=0.1)):
            await eventually(lambda: len(purged) > 2)

    asyncio.run(run())
    assert purged[:3] == [False, True, True]
    assert caplog.text.count("no purge for now") == 1


@asynccontextmanager
async def running(cortex_yaml: Path, limits: Limits) -> AsyncIterator[list[asyncio.Task[None]]]:
    """The tasks of an API whose container is not there."""
    it = LocalAPI(
        read_config(cortex_yaml)[0],
        Placement.at(f"http://127.0.0.1:{free_port()}"),
        SQLiteStorage(cortex_yaml.parent / "queue.sqlite3"),
        limits,
        Policy(1),
        Metrics(),
        Signal(),
    )
    yield it.start()
    await it.replica.drain()
    await it.close()
