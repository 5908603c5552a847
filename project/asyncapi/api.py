"""One AsyncAPI on this machine: its gateway, its queue, and the replica that empties it."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from functools import partial

from project.asyncapi.dequeuer import Policy
from project.asyncapi.endpoint import Gateway
from project.asyncapi.metrics import Metrics
from project.asyncapi.queue import RequestQueue
from project.asyncapi.replica import Placement, Replica
from project.asyncapi.service import Service
from project.asyncapi.spec import AsyncAPI
from project.asyncapi.storage import Storage, StorageError
from project.asyncapi.waiting import Signal

logger = logging.getLogger(__name__)

PURGE_PERIOD_SECONDS = 60.0
PURGE_LIMIT = 100
PURGE_PAUSE_SECONDS = 0.05
"""Requests that a purge forgets in one go, and how long others have the disk before the next."""

UPTIME = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that nobody sets, and that goes on while the machine sleeps, where there is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is taken and how long it is kept.

    Attributes:
        max_queue_length: requests that wait or are in flight.
        min_free_bytes: of the disk, below which nothing new is taken, so that results find room.
        retention_seconds: for which a request that has ended can be read.
    """

    max_payload_bytes: int = 32 << 20
    max_result_bytes: int = 32 << 20
    max_queue_length: int = 1_000_000
    min_free_bytes: int = 64 << 20
    retention_seconds: float = 7 * 24 * 3600.0


class LocalAPI:
    """Gateway, queue and replica of one API.

    Args:
        storage: closed with the API.
        changed: sent when anything has changed.
    """

    def __init__(
        self,
        config: AsyncAPI,
        placement: Placement,
        storage: Storage,
        limits: Limits,
        policy: Policy,
        metrics: Metrics,
        changed: Signal,
    ) -> None:
        self.name = config.name
        self._retention_seconds = limits.retention_seconds
        self._queue = RequestQueue(storage, changed, limits.max_queue_length)
        # One for now: several would share the queue, which leases a request to one of them.
        self.replica = Replica(
            config,
            placement,
            self._queue,
            changed,
            policy,
            limits.max_result_bytes,
            partial(metrics.observe, config.name),
        )
        self._purging: asyncio.Task[None] | None = None
        self.gateway = Gateway(Service(self._queue, limits.max_payload_bytes))
        metrics.add(config.name, self._queue)

    def start(self) -> list[asyncio.Task[None]]:
        """Begin; none of the tasks ends by itself unless it has failed."""
        self._purging = asyncio.create_task(self._purge())
        return [self._purging, *self.replica.start()]

    async def close(self) -> None:
        """Stop everything; the gateway must have stopped, and the replica been drained."""
        await self.replica.close()
        if self._purging is not None:
            self._purging.cancel()
            await asyncio.wait({self._purging})
        await self._queue.close()

    async def _purge(self) -> None:
        ahead = _clock_ahead()
        while True:
            before, ahead = ahead, _clock_ahead()
            jump = ahead - before
            if jump > self._retention_seconds / 10:
                # What has just ended looks old now; when it is, all that looks old is so.
                logger.warning("the clock is %.0f s ahead of where it was: no purge for now", jump)
                await asyncio.sleep(self._retention_seconds)
                continue
            purged = 0
            try:
                purged = await self._queue.purge(self._retention_seconds, PURGE_LIMIT)
            except StorageError as error:  # a full disk, for example: it passes, or others say so
                logger.warning("what is old cannot be purged yet: %s", error)
            await asyncio.sleep(PURGE_PAUSE_SECONDS if purged else PURGE_PERIOD_SECONDS)


def _clock_ahead() -> float:
    """The time of day less that since the start of the machine; changes when the clock is set."""
    return time.time() - time.clock_gettime(UPTIME)
