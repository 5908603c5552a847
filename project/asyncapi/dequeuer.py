"""The dequeuer: pulls requests while the container is ready, sends them, stores what comes back."""

from __future__ import annotations

import asyncio
import logging

from project.asyncapi.handler import NotSuccessful, RequestHandler, Unreachable
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import RequestQueue, Signal
from project.asyncapi.storage import StorageError
from project.asyncapi.types import Delivery

logger = logging.getLogger(__name__)

MAX_RECEIVES = 3
"""How often a request may break its connection before it is held to be the cause."""

STORAGE_RETRY_SECONDS = 1.0


class Dequeuer:
    """Keeps at most ``max_concurrency`` requests in the container.

    Args:
        changed: sent by the queue and the readiness probe, and here when a request has ended.
    """

    def __init__(
        self,
        queue: RequestQueue,
        handler: RequestHandler,
        readiness: Readiness,
        changed: Signal,
        max_concurrency: int,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._readiness = readiness
        self._changed = changed
        self._max_concurrency = max_concurrency
        self._running: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self) -> None:
        """Pull and send until :meth:`stop`; returns when what was running has ended."""
        while not self._stopping:
            changed = self._changed.listen()
            deliveries = await self._pull()
            for delivery in deliveries:
                self._start(delivery)
            if not deliveries:
                await changed.wait()
        while self._running:
            await asyncio.wait(self._running)

    def stop(self) -> None:
        """Pull no more."""
        self._stopping = True
        self._changed.send()

    def abandon(self) -> None:
        """Drop what is running: it stays in progress in the storage."""
        for task in self._running:
            task.cancel()

    async def _pull(self) -> list[Delivery]:
        free = self._max_concurrency - len(self._running)
        if not self._readiness.ready or not free:
            return []
        try:
            return await self._queue.receive(free)
        except StorageError:
            logger.exception("nothing can be pulled; trying again")
            await asyncio.sleep(STORAGE_RETRY_SECONDS)
            self._changed.send()
            return []

    def _start(self, delivery: Delivery) -> None:
        task = asyncio.create_task(self._process(delivery))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.send()

    async def _process(self, delivery: Delivery) -> None:
        request_id = delivery.request.id
        logger.info("request %s: in_progress", request_id)
        try:
            await self._deliver(delivery)
        except StorageError:
            # Still in progress in the storage, and so back in the queue at the next start.
            logger.exception("request %s: its end could not be stored", request_id)

    async def _deliver(self, delivery: Delivery) -> None:
        request_id = delivery.request.id
        try:
            result = await self._handler.submit(delivery.request)
        except NotSuccessful as error:
            await self._fail(request_id, str(error))
        except Unreachable as error:
            await self._retry(delivery, str(error))
        except Exception as error:
            # Whatever nobody thought of ends the request: it must not be sent for ever.
            logger.exception("request %s: unforeseen", request_id)
            await self._fail(request_id, f"{type(error).__name__}: {error}")
        else:
            await self._queue.complete(request_id, result)
            logger.info("request %s: completed", request_id)

    async def _retry(self, delivery: Delivery, reason: str) -> None:
        self._readiness.lost()
        if delivery.receives >= MAX_RECEIVES:
            await self._fail(delivery.request.id, f"{reason}, {delivery.receives} times")
            return
        logger.warning("request %s: in_queue again: %s", delivery.request.id, reason)
        await self._queue.release(delivery.request.id)

    async def _fail(self, request_id: str, reason: str) -> None:
        logger.warning("request %s: failed: %s", request_id, reason)
        await self._queue.fail(request_id, reason)
