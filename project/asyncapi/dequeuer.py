"""The dequeuer: pulls requests while the container is ready, sends them, stores what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from project.asyncapi import gojson
from project.asyncapi.handler import NotSuccessful, RequestHandler, Unreachable
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import RequestQueue
from project.asyncapi.storage import LeaseLost, StorageError
from project.asyncapi.types import Delivery, Request
from project.asyncapi.waiting import Signal

logger = logging.getLogger(__name__)

LEASE_SECONDS = 30.0
RENEW_SECONDS = 10.0
"""Cortex's visibility timeout and the period in which it is renewed."""

LONG_POLL_SECONDS = 10.0
IDLE_SLEEP_SECONDS = 10.0
"""How long Cortex's dequeuer asks SQS for a message, and sleeps when none came."""

STORAGE_RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are delivered.

    Attributes:
        max_concurrency: requests in the container at once.
        max_receives: how often a request may break its connection before it is held to be the
            cause.
        faithful: do as Cortex does where it is worse: a broken or refused connection is final, and
            the dequeuer sleeps when nothing has come for a while.
    """

    max_concurrency: int
    max_receives: int = 3
    faithful: bool = False


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
        policy: Policy,
    ) -> None:
        self._queue = queue
        self._handler = handler
        self._readiness = readiness
        self._changed = changed
        self._policy = policy
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._in_container = 0
        self._stopping = False

    async def run(self) -> None:
        """Pull and send until :meth:`stop`; returns when what was running has ended."""
        renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                changed = self._changed.listen()
                free = self._free()
                deliveries = await self._pull(free)
                for delivery in deliveries:
                    self._start(delivery)
                if not free or len(deliveries) < free:  # nothing may, or can, be pulled
                    await self._idle(changed)
            while self._running:
                await asyncio.wait(self._running)
        finally:
            renewing.cancel()

    def stop(self) -> None:
        """Pull no more."""
        self._stopping = True
        self._changed.send()

    def abandon(self) -> None:
        """Drop what is running: it stays leased in the storage."""
        for task in self._running:
            task.cancel()

    def _free(self) -> int:
        """How many requests may be pulled; those that wait to be stored hold up no others yet."""
        most = self._policy.max_concurrency
        if not self._readiness.ready:
            return 0
        return min(most - self._in_container, 2 * most - len(self._running))

    async def _pull(self, limit: int) -> list[Delivery]:
        if not limit:
            return []
        try:
            return await self._queue.receive(limit, LEASE_SECONDS)
        except StorageError:
            logger.exception("nothing can be pulled; trying again")
            await asyncio.sleep(STORAGE_RETRY_SECONDS)
            self._changed.send()
            return []

    async def _idle(self, changed: asyncio.Event) -> None:
        """Wait for a change; a lease that runs out sends none, so look again now and then."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(changed.wait(), LONG_POLL_SECONDS)
            return
        if self._policy.faithful and not self._running and not self._stopping:
            await asyncio.sleep(IDLE_SLEEP_SECONDS)

    def _start(self, delivery: Delivery) -> None:
        self._in_container += 1
        task = asyncio.create_task(self._process(delivery))
        self._running[task] = delivery
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._changed.send()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            for delivery in list(self._running.values()):
                with contextlib.suppress(StorageError):  # it ended meanwhile, or is tried again
                    await self._queue.renew(delivery, LEASE_SECONDS)

    async def _process(self, delivery: Delivery) -> None:
        request = delivery.request
        logger.info("in_progress", extra={"id": request.id, "receives": delivery.receives})
        try:
            result = await self._submit(request)
        except NotSuccessful as error:
            await self._fail(delivery, str(error))
        except Unreachable as error:
            await self._retry(delivery, str(error))
        except Exception as error:
            # Whatever nobody thought of ends the request: it must not be sent for ever.
            logger.exception("unforeseen", extra={"id": request.id})
            await self._fail(delivery, f"{type(error).__name__}: {error}")
        else:
            await self._complete(delivery, result)

    async def _submit(self, request: Request) -> bytes:
        try:
            return await self._handler.submit(request)
        finally:  # the next one need not wait until this one's end is stored
            self._in_container -= 1
            self._changed.send()

    async def _complete(self, delivery: Delivery, result: bytes) -> None:
        request_id = delivery.request.id
        kind = gojson.kind(result)
        if kind not in {"object", "null"}:
            logger.warning(
                "the container answered with a JSON %s: it is stored, but Cortex's gateway answers "
                "500 to whoever reads it; answer with an object", kind, extra={"id": request_id},
            )  # fmt: skip
        await self._store(lambda: self._queue.complete(delivery, result), "completed", delivery)

    async def _retry(self, delivery: Delivery, reason: str) -> None:
        if self._policy.faithful and not _go_resends(delivery.request):
            await self._fail(delivery, reason)
            return
        self._readiness.lost()
        if delivery.receives >= self._policy.max_receives:
            await self._fail(delivery, f"{reason}, {delivery.receives} times")
            return
        await self._store(lambda: self._queue.release(delivery), "released", delivery, reason)

    async def _fail(self, delivery: Delivery, reason: str) -> None:
        await self._store(lambda: self._queue.fail(delivery, reason), "failed", delivery, reason)

    async def _store(
        self,
        step: Callable[[], Awaitable[None]],
        event: str,
        delivery: Delivery,
        reason: str | None = None,
    ) -> None:
        """Do ``step`` as soon as the storage can: what has ended must not be done twice."""
        extra = {"id": delivery.request.id} | ({"reason": reason} if reason else {})
        while True:
            try:
                await step()
            except LeaseLost as error:
                logger.warning("its end comes too late: %s", error, extra=extra)
                return
            except StorageError as error:
                logger.warning("its end cannot be stored yet: %s", error, extra=extra)
                await asyncio.sleep(STORAGE_RETRY_SECONDS)
            else:
                logger.log(logging.WARNING if reason else logging.INFO, event, extra=extra)
                return


def _go_resends(request: Request) -> bool:
    """Whether Go's client sends it again by itself when a connection that it reused is broken."""
    names = {name for name, _ in request.headers}
    return not request.body and bool(names & {"Idempotency-Key", "X-Idempotency-Key"})
