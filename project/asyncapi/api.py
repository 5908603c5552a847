"""One AsyncAPI on this machine: its queue, its container, and the dequeuer between them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from project.asyncapi.checks import Target
from project.asyncapi.config import ConfigError
from project.asyncapi.dequeuer import Dequeuer, Policy
from project.asyncapi.endpoint import Gateway
from project.asyncapi.handler import RequestHandler
from project.asyncapi.metrics import Metrics
from project.asyncapi.probes import Readiness, watch_liveness
from project.asyncapi.queue import RequestQueue, Signal
from project.asyncapi.replica import GRACE_SECONDS, Replica
from project.asyncapi.service import Service
from project.asyncapi.spec import AsyncAPI
from project.asyncapi.sqlite import SQLiteStorage

logger = logging.getLogger(__name__)

LOCALHOST = "127.0.0.1"
PURGE_PERIOD_SECONDS = 60.0
PURGE_LIMIT = 500
"""Requests that a purge forgets in one go: others write between two of them."""


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


@dataclass(frozen=True, slots=True)
class Placement:
    """Where an API's container runs.

    Attributes:
        command: starts it; None if it runs already.
        port: where it listens.
    """

    command: Sequence[str] | None
    host: str
    port: int

    @classmethod
    def at(cls, url: str) -> Placement:
        """Of a container that runs already.

        Raises:
            ConfigError: ``url`` is not ``http://host:port``.
        """
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ConfigError(f"--container-url {url}: must be http://host:port")
        return cls(None, parts.hostname, parts.port or 80)


class LocalAPI:
    """Queue, dequeuer and container of one API.

    Args:
        storage: the SQLite file.
        changed: sent when anything has changed.

    Raises:
        StorageError: the storage cannot be used.
    """

    def __init__(
        self,
        config: AsyncAPI,
        placement: Placement,
        storage: Path,
        limits: Limits,
        policy: Policy,
        metrics: Metrics,
        changed: Signal,
    ) -> None:
        self.name = config.name
        self._limits = limits
        container = config.pod.containers[0]
        env = {**config.env, "CORTEX_PORT": str(placement.port)}
        target = Target(placement.host, {config.pod.port: placement.port}, env)
        self._queue = RequestQueue(
            SQLiteStorage(storage, min_free_bytes=limits.min_free_bytes),
            changed,
            limits.max_queue_length,
        )
        self._handler = RequestHandler(
            f"http://{placement.host}:{placement.port}/",
            limits.max_result_bytes,
            partial(metrics.observe, config.name),
        )
        self._readiness = Readiness(config.readiness_probes, target, changed)
        self._dequeuer = Dequeuer(self._queue, self._handler, self._readiness, changed, policy)
        self._replica: Replica | None = None
        if placement.command is not None:
            self._replica = Replica(placement.command, env, container.pre_stop, target)
        self._liveness = container.liveness_probe
        self._target = target
        self._hurry = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._dequeuing: asyncio.Task[None] | None = None
        self.gateway = Gateway(Service(self._queue, limits.max_payload_bytes))
        metrics.add(config.name, self._queue)

    @property
    def ready(self) -> bool:
        """Whether the container passes its probes."""
        return self._readiness.ready

    def start(self) -> list[asyncio.Task[None]]:
        """Begin; none of the tasks ends by itself unless it has failed."""
        self._dequeuing = asyncio.create_task(self._dequeuer.run())
        self._background = [
            asyncio.create_task(self._readiness.run()),
            asyncio.create_task(self._purge()),
        ]
        if self._replica is not None:
            self._background.append(asyncio.create_task(self._replica.run()))
            if self._liveness is not None:
                self._background.append(asyncio.create_task(self._watch(self._replica)))
        return [self._dequeuing, *self._background]

    def hurry(self) -> None:
        """Do not wait for the requests in progress any longer."""
        self._hurry.set()

    async def drain(self) -> None:
        """Pull no more, and wait for what is running; what waits stays queued."""
        if self._dequeuing is None:
            return
        self._dequeuer.stop()
        grace = asyncio.sleep(GRACE_SECONDS)
        await first_of(asyncio.wait({self._dequeuing}), self._hurry.wait(), grace)
        if not self._dequeuing.done():
            logger.warning(
                "requests still in progress are sent again after the next start",
                extra={"api": self.name},
            )
            self._dequeuer.abandon()
            await asyncio.wait({self._dequeuing})

    async def close(self) -> None:
        """Stop the container and everything else; the gateway must have stopped."""
        if self._replica is not None:
            stopping = asyncio.create_task(self._replica.stop())
            await first_of(stopping, self._hurry.wait())
            if not stopping.done():
                self._replica.kill()
            await stopping
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._handler.close()
        await self._queue.close()

    async def _watch(self, replica: Replica) -> None:
        if self._liveness is not None:
            await watch_liveness(
                self._liveness, self._target, lambda: replica.generation, replica.restart
            )

    async def _purge(self) -> None:
        while True:
            while await self._queue.purge(self._limits.retention_seconds, PURGE_LIMIT):
                pass
            await asyncio.sleep(PURGE_PERIOD_SECONDS)


async def first_of(*awaitables: Awaitable[object]) -> None:
    """Wait until one is done; those made here for the wait are cancelled, given tasks are not."""
    given = {each for each in awaitables if isinstance(each, asyncio.Task)}
    made = {asyncio.ensure_future(each) for each in awaitables if each not in given}
    await asyncio.wait(given | made, return_when=asyncio.FIRST_COMPLETED)
    for task in made:
        task.cancel()
