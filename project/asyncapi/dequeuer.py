"""The dequeuer: pulls requests while the container is ready, sends them, stores what comes back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

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

AHEAD = 8
"""Requests that are leased before the container has a place for them, so that it has the next one
as soon as it has answered; ``max_concurrency`` if that is more. The next are leased when half of
them are sent: one transaction for several. As many ends may wait to be stored."""

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
        changed: sent by the queue and the readiness probe, and here when more should be leased.
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
        self._most_ahead = max(AHEAD, policy.max_concurrency)
        self._ahead: deque[Delivery] = deque()
        self._drained = False  # the queue was, and nothing has changed since
        self._running: dict[asyncio.Task[None], Delivery] = {}
        self._in_container = 0
        self._alone = False  # the one that was sent last must have nobody beside it
        self._renewed_at = 0.0
        self._stopping = False

    async def run(self) -> None:
        """Pull and send until :meth:`stop`; returns when what was running has ended."""
        self._renewed_at = asyncio.get_running_loop().time()
        renewing = asyncio.create_task(self._renew())
        try:
            while not self._stopping:
                changed = self._changed.listen()
                self._drained = False
                await self._pull()
                if not self._open:
                    await self._give_back()
                if self._drained or not self._wanted():
                    await self._idle(changed)
            await self._give_back()
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

    @property
    def _open(self) -> bool:
        """Whether anything may be sent."""
        return self._readiness.ready and not self._stopping

    def _places(self) -> int:
        """How many may be sent; up to a bound, ends that wait to be stored hold up no others."""
        most = self._policy.max_concurrency
        room = most + self._most_ahead - len(self._running)
        return min(most - self._in_container, room) if self._open else 0

    def _wanted(self) -> int:
        """How many to lease: none until half of those ahead are sent, then all there may be."""
        if not self._open or len(self._ahead) > self._most_ahead // 2:
            return 0
        return self._places() + self._most_ahead - len(self._ahead)

    async def _pull(self) -> None:
        """Lease what is wanted, and send what may be sent."""
        if wanted := self._wanted():
            received = await self._receive(wanted)
            self._drained = len(received) < wanted
            self._ahead.extend(received)
        self._send()

    async def _receive(self, limit: int) -> list[Delivery]:
        try:
            # A renewal is missing: what is ours must not be taken for another dequeuer's that died.
            if asyncio.get_running_loop().time() - self._renewed_at > LEASE_SECONDS - RENEW_SECONDS:
                await self._renew_all()
            return await self._queue.receive(limit, LEASE_SECONDS)
        except StorageError:
            logger.exception("nothing can be pulled; trying again")
            await asyncio.sleep(STORAGE_RETRY_SECONDS)
            self._changed.send()
            return []

    async def _give_back(self) -> None:
        """What is leased and not sent is for whoever is ready first."""
        given, self._ahead = self._ahead, deque()
        releases = (self._queue.release(delivery, broke=False) for delivery in given)
        outcomes = await asyncio.gather(*releases, return_exceptions=True)
        for delivery, error in zip(given, outcomes, strict=True):
            if error is not None:  # nobody renews it: its lease runs out
                logger.warning("not given back: %s", error, extra={"id": delivery.request.id})

    async def _idle(self, changed: asyncio.Event) -> None:
        """Wait for a change; a lease that runs out sends none, so look again now and then."""
        loop = asyncio.get_running_loop()
        until = loop.time() + LONG_POLL_SECONDS
        timer = loop.call_at(until, self._changed.send)  # a tenth of what asyncio.wait_for costs
        try:
            await changed.wait()
        finally:
            timer.cancel()
        nothing_came = loop.time() >= until and not self._running
        if self._policy.faithful and nothing_came and not self._stopping:
            await asyncio.sleep(IDLE_SLEEP_SECONDS)

    def _send(self) -> None:
        """Send what is leased while the container has a place."""
        while self._ahead and self._places() and not self._must_wait(self._ahead[0]):
            self._start(self._ahead.popleft())
        if not self._drained and self._wanted():
            self._changed.send()

    def _must_wait(self, delivery: Delivery) -> bool:
        """Whether it may not join what is in the container."""
        return self._in_container > 0 and (self._alone or self._is_last(delivery))

    def _is_last(self, delivery: Delivery) -> bool:
        """Whether it would fail if it broke once more.

        Such a one is sent alone: what breaks the container is found without those being failed for
        it that were in there with it.
        """
        return delivery.receives >= max(2, self._policy.max_receives)

    def _start(self, delivery: Delivery) -> None:
        self._in_container += 1
        self._alone = self._is_last(delivery)
        self._queue.begin(delivery)
        task = asyncio.create_task(self._process(delivery))
        self._running[task] = delivery
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        self._send()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            with contextlib.suppress(StorageError):  # tried again before anything is leased
                await self._renew_all()

    async def _renew_all(self) -> None:
        began = asyncio.get_running_loop().time()
        held = [*self._running.values(), *self._ahead]
        renewals = (self._queue.renew(delivery, LEASE_SECONDS) for delivery in held)
        outcomes = await asyncio.gather(*renewals, return_exceptions=True)
        for delivery, outcome in zip(held, outcomes, strict=True):
            if isinstance(outcome, LeaseLost):  # it ended meanwhile, or is another's
                with contextlib.suppress(ValueError):
                    self._ahead.remove(delivery)
            elif outcome is not None:
                raise outcome
        self._renewed_at = began

    async def _process(self, delivery: Delivery) -> None:
        extra = {"id": delivery.request.id, "receives": delivery.receives}
        logger.info("in_progress", extra=extra)
        end = await self._submit(delivery)
        self._in_container -= 1
        self._send()  # the container need not wait until this one's end is stored
        await end

    async def _submit(self, delivery: Delivery) -> Coroutine[Any, Any, None]:
        """Have it computed; returns what is left to do: to store what came of it."""
        if delivery.damaged:
            return self._fail(delivery, "the storage's file is damaged where it is")
        try:
            result = await self._handler.submit(delivery.request)
        except NotSuccessful as error:
            return self._fail(delivery, str(error))
        except Unreachable as error:
            return self._broken(delivery, str(error))
        except Exception as error:
            # Whatever nobody thought of ends the request: it must not be sent for ever.
            logger.exception("unforeseen", extra={"id": delivery.request.id})
            return self._fail(delivery, f"{type(error).__name__}: {error}")
        return self._complete(delivery, result)

    async def _complete(self, delivery: Delivery, result: bytes) -> None:
        request_id = delivery.request.id
        kind = gojson.kind(result)
        if kind not in {"object", "null"}:
            logger.warning(
                "the container answered with a JSON %s: it is stored, but Cortex's gateway answers "
                "500 to whoever reads it; answer with an object", kind, extra={"id": request_id},
            )  # fmt: skip
        await self._store(lambda: self._queue.complete(delivery, result), "completed", delivery)

    def _broken(self, delivery: Delivery, reason: str) -> Coroutine[Any, Any, None]:
        if self._policy.faithful and not _go_resends(delivery.request):
            return self._fail(delivery, reason)
        self._readiness.lost()  # at once: what is ahead must not be sent after it
        if delivery.receives >= self._policy.max_receives:
            return self._fail(delivery, f"{reason}, {delivery.receives} times")
        return self._release(delivery, reason)

    async def _release(self, delivery: Delivery, reason: str) -> None:
        step = partial(self._queue.release, delivery, broke=True)
        await self._store(step, "released", delivery, reason)

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
