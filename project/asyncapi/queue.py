"""The queue: a storage seen from the event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from project.asyncapi.storage import DuplicateRequest, LeaseLost, Storage
from project.asyncapi.types import Delivery, Depth, Request, Status, Workload
from project.asyncapi.waiting import Signal

logger = logging.getLogger(__name__)

T = TypeVar("T")

GROUP = 256
"""Calls that share a commit at most, so that the first does not wait for long."""

PATIENCE_SECONDS = 0.006
"""How long what holds nobody up may wait for others to share its commit with."""

SIBLINGS = 4
"""Other requests in the container with which an end may wait so: a lone client waits for its own,
and so does a group of them whose requests all end at once."""


class QueueFull(RuntimeError):
    """As many requests wait as may."""


Outcome: TypeAlias = T | BaseException
"""What a call returned or raised."""


def _nothing(_: Outcome[Any]) -> None:
    """Nobody but the caller is interested."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """A storage call that waits for its turn.

    Attributes:
        durable: its caller was promised that it is on the disk.
        then: called on the event loop with the outcome, though the caller may have left.
    """

    run: Callable[[], T]
    durable: bool
    then: Callable[[Outcome[T]], None]
    future: asyncio.Future[T]


class _Worker:
    """Runs calls on one thread, in their order, all that have come in meanwhile in one go.

    One hop to the thread and, when they are written, one wait for the disk serve them all. Those
    that are urgent come first, and by themselves: they do not wait for the others' disk. Those that
    are patient wait for the others, but not for long.
    """

    def __init__(self, name: str, run: Callable[[Sequence[_Call[Any]]], list[Any]]) -> None:
        self._run = run
        self._waiting: dict[bool, list[_Call[Any]]] = {False: [], True: []}  # by urgency
        self._due = math.inf  # when those that are not urgent are to be run, by time.monotonic
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(
        self,
        call: Callable[[], T],
        then: Callable[[Outcome[T]], None] = _nothing,
        *,
        durable: bool = False,
        urgent: bool = False,
        patience: float = 0.0,
    ) -> asyncio.Future[T]:
        """Run ``call``; what it returns or raises is the future's.

        What was begun is done, and ``then`` is told, though the future may be cancelled.

        Args:
            patience: seconds that it may wait for others that it can be run with.

        Raises:
            RuntimeError: the worker is closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._waiting[urgent].append(_Call(call, durable, then, future))
            due = time.monotonic() + patience
            if urgent:
                self._changed.notify()
            elif due < self._due:
                self._due = due
                self._changed.notify()
        return future

    async def close(self) -> None:
        """Finish the calls that were made; later ones are refused."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while group := self._next():
            try:
                outcomes = self._run(group)
            except BaseException as error:  # nobody may wait for ever
                outcomes = [error] * len(group)
            group[0].future.get_loop().call_soon_threadsafe(_settle, group, outcomes)

    def _next(self) -> list[_Call[Any]]:
        """Wait for calls; none when there are no more and the worker is closed."""
        with self._changed:
            while not (self._waiting[True] or self._closed or time.monotonic() >= self._due):
                self._changed.wait(None if self._due == math.inf else self._due - time.monotonic())
            urgent = bool(self._waiting[True])
            waiting = self._waiting[urgent]
            self._waiting[urgent] = waiting[GROUP:]
            if not urgent and len(waiting) <= GROUP:
                self._due = math.inf
            return waiting[:GROUP]


def _settle(calls: Sequence[_Call[Any]], outcomes: Sequence[Any]) -> None:
    for call, outcome in zip(calls, outcomes, strict=True):
        call.then(outcome)
        if call.future.cancelled():
            continue
        if isinstance(outcome, BaseException):
            call.future.set_exception(outcome)
        else:
            call.future.set_result(outcome)


class RequestQueue:
    """A storage's calls off the event loop, those that write in groups of one commit.

    Args:
        changed: sent when a request has come into the queue.
        max_length: how many requests may wait or be in flight.
    """

    def __init__(self, storage: Storage, changed: Signal, max_length: int) -> None:
        self._storage = storage
        self._changed = changed
        self._max_length = max_length
        depth = storage.depth()
        self._length = depth.queued + depth.in_flight
        self._beginning: set[str] = set()  # ids whose begin is not written yet
        self._in_container: set[str] = set()
        self._writer = _Worker("storage-writer", self._commit)
        self._reader = _Worker("storage-reader", _run_all)

    async def send(self, request: Request) -> None:
        """Put a new request in the queue; durable on return.

        A request that is there already, id, body and query, is not queued again.

        Raises:
            QueueFull: the queue has its greatest length.
            DuplicateRequest: the id is there, for another request.
        """
        if self._length >= self._max_length:
            raise QueueFull(f"the queue holds {self._length} requests, as many as it may")
        self._length += 1  # at once: others who come before it is stored must see it
        sent = partial(self._sent, request.id)
        await self._writer.submit(lambda: self._storage.add(request), sent, durable=True)

    async def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """Lease up to ``limit`` requests, without waiting for one; they may be sent later."""
        return await self._writer.submit(
            lambda: self._storage.receive(limit, lease_seconds), urgent=True
        )

    async def renew(self, delivery: Delivery, lease_seconds: float) -> None:
        """Lease it for longer."""
        await self._writer.submit(lambda: self._storage.renew(delivery, lease_seconds))

    def begin(self, delivery: Delivery) -> None:
        """It is sent now: who looks from now on sees it in progress, though it is written later."""
        request_id = delivery.request.id
        self._beginning.add(request_id)
        self._in_container.add(request_id)
        written = self._writer.submit(
            lambda: self._storage.begin(delivery),
            partial(self._begun, request_id),
            patience=PATIENCE_SECONDS,
        )
        written.add_done_callback(asyncio.Future.exception)  # _begun is told; nobody else asks

    async def complete(self, delivery: Delivery, result: bytes) -> None:
        """Store its result."""
        await self._end(delivery, lambda: self._storage.complete(delivery, result))

    async def fail(self, delivery: Delivery, reason: str) -> None:
        """End it without a result."""
        await self._end(delivery, lambda: self._storage.fail(delivery, reason))

    async def release(self, delivery: Delivery, *, broke: bool) -> None:
        """Put it back; see :meth:`Storage.release`."""
        self._in_container.discard(delivery.request.id)
        await self._writer.submit(
            lambda: self._storage.release(delivery, broke=broke), self._released
        )

    async def get(self, request_id: str) -> Workload | None:
        """What is known of a request."""
        begun = request_id in self._beginning
        found = await self._reader.submit(lambda: self._storage.get(request_id))
        if begun and found is not None and found.status is Status.IN_QUEUE:
            return replace(found, status=Status.IN_PROGRESS)
        return found

    async def depth(self) -> Depth:
        """How many requests wait, and how many are in flight."""
        return await self._reader.submit(self._storage.depth)

    async def purge(self, age_seconds: float, limit: int) -> int:
        """Forget up to ``limit`` requests that ended longer ago."""
        return await self._writer.submit(lambda: self._storage.purge(age_seconds, limit))

    async def close(self) -> None:
        """Finish the calls that were made, then close the storage."""
        await self._writer.close()
        await self._reader.close()
        self._storage.close()

    async def _end(self, delivery: Delivery, call: Callable[[], None]) -> None:
        self._in_container.discard(delivery.request.id)
        patience = PATIENCE_SECONDS if len(self._in_container) >= SIBLINGS else 0.0
        await self._writer.submit(call, self._ended, durable=True, patience=patience)

    def _ended(self, outcome: Outcome[None]) -> None:
        if outcome is None:
            self._length -= 1

    def _sent(self, request_id: str, outcome: Outcome[bool]) -> None:
        if outcome is True:
            logger.info("in_queue", extra={"id": request_id})
            self._changed.send()
        else:  # it was there already, or cannot be stored
            self._length -= 1

    def _begun(self, request_id: str, outcome: Outcome[None]) -> None:
        self._beginning.discard(request_id)
        if outcome is not None:
            logger.warning("it is sent, but not shown so: %s", outcome, extra={"id": request_id})

    def _released(self, outcome: Outcome[None]) -> None:
        if outcome is None:
            self._changed.send()

    def _commit(self, calls: Sequence[_Call[Any]]) -> list[Any]:
        """Run the calls in one transaction; if that fails, each in its own, to see which did."""
        begun = False  # a file that somebody locks would be waited for once a call
        try:
            with self._storage.transaction(durable=any(call.durable for call in calls)):
                begun = True
                return [_outcome(call, (LeaseLost, DuplicateRequest)) for call in calls]
        except Exception as error:
            if len(calls) == 1 or not begun:
                return [error] * len(calls)
        return [outcome for call in calls for outcome in self._commit([call])]


def _run_all(calls: Sequence[_Call[Any]]) -> list[Any]:
    return [_outcome(call, (Exception,)) for call in calls]


def _outcome(call: _Call[T], expected: tuple[type[Exception], ...]) -> Outcome[T]:
    try:
        return call.run()
    except expected as error:
        return error
