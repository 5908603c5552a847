"""One API as a whole: what goes on beside its requests."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from project.asyncapi import api
from project.asyncapi.api import Limits, LocalAPI
from project.asyncapi.config import read_config
from project.asyncapi.dequeuer import Policy
from project.asyncapi.metrics import Metrics
from project.asyncapi.queue import Signal
from project.asyncapi.replica import Placement
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError, StorageFull
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
        it = LocalAPI(
            read_config(cortex_yaml)[0],
            Placement.at(f"http://127.0.0.1:{free_port()}"),
            SQLiteStorage(cortex_yaml.parent / "queue.sqlite3"),
            Limits(retention_seconds=7.0),
            Policy(1),
            Metrics(),
            Signal(),
        )
        tasks = it.start()
        await eventually(lambda: len(purged) > 1)
        assert not any(task.done() for task in tasks)
        await it.replica.drain()
        await it.close()

    asyncio.run(run())
    assert purged[0] == (7.0, api.PURGE_LIMIT)
    assert "cannot be purged yet: no room" in caplog.text
