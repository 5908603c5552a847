"""The queue: a storage seen from the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from project.asyncapi.storage import DuplicateRequest, LeaseLost, Storage
from project.asyncapi.types import Delivery, Depth, Request, Workload
from project.asyncapi.waiting import Signal

T = TypeVar("T")

GROUP = 256
"""Calls that share a commit at most, so that the first does not wait for long."""


class QueueFull(RuntimeError):
    """As many requests wait as may."""


@dataclass(frozen=True, slots=True)
class _Call(Generic[T]):
    """A storage call that waits for its turn."""

    run: Callable[[], T]
    durable: bool
    future: asyncio.Future[T]


class _Worker:
    """Runs calls on one thread, all of a kind that have come in meanwhile in one go.

    One hop to the thread and, when they are written, one wait for the disk serve them all. Those
    that need not wait for the disk come first, and by themselves.
    """

    def __init__(self, name: str, run: Callable[[Sequence[_Call[Any]]], list[Any]]) -> None:
        self._run = run
        self._waiting: dict[bool, list[_Call[Any]]] = {False: [], True: []}  # by durability
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[], T], *, durable: bool = False) -> asyncio.Future[T]:
        """Run ``call``; what it returns or raises is the future's.

        Raises:
            RuntimeError: the worker is closed.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        with self._changed:
            if self._closed:
                raise RuntimeError("the queue is closed")
            self._waiting[durable].append(_Call(call, durable, future))
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
            while not (self._waiting[False] or self._waiting[True] or self._closed):
                self._changed.wait()
            durable = not self._waiting[False]
            waiting = self._waiting[durable]
            self._waiting[durable] = waiting[GROUP:]
            return waiting[:GROUP]


def _settle(calls: Sequence[_Call[Any]], outcomes: Sequence[Any]) -> None:
    for call, outcome in zip(calls, outcomes, strict=True):
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
        stored = self._writer.submit(lambda: self._storage.add(request), durable=True)
        # Not after the await: of a caller who leaves, the request is stored all the same.
        stored.add_done_callback(self._sent)
        await asyncio.shield(stored)

    async def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """Lease up to ``limit`` requests, without waiting for one."""
        call = self._writer.submit(lambda: self._storage.receive(limit, lease_seconds))
        return await asyncio.shield(call)

    async def renew(self, delivery: Delivery, lease_seconds: float) -> None:
        """Lease it for longer."""
        call = self._writer.submit(lambda: self._storage.renew(delivery, lease_seconds))
        await asyncio.shield(call)

    async def complete(self, delivery: Delivery, result: bytes) -> None:
        """Store its result."""
        await self._end(lambda: self._storage.complete(delivery, result))

    async def fail(self, delivery: Delivery, reason: str) -> None:
        """End it without a result."""
        await self._end(lambda: self._storage.fail(delivery, reason))

    async def release(self, delivery: Delivery) -> None:
        """Put it back."""
        released = self._writer.submit(lambda: self._storage.release(delivery))
        released.add_done_callback(self._released)  # not after the await, as in send()
        await asyncio.shield(released)

    async def get(self, request_id: str) -> Workload | None:
        """What is known of a request."""
        return await self._reader.submit(lambda: self._storage.get(request_id))

    async def depth(self) -> Depth:
        """How many requests wait, and how many are in flight."""
        return await self._reader.submit(self._storage.depth)

    async def purge(self, age_seconds: float, limit: int) -> int:
        """Forget up to ``limit`` requests that ended longer ago."""
        call = self._writer.submit(lambda: self._storage.purge(age_seconds, limit))
        return await asyncio.shield(call)

    async def close(self) -> None:
        """Finish the calls that were made, then close the storage."""
        await self._writer.close()
        await self._reader.close()
        self._storage.close()

    async def _end(self, call: Callable[[], None]) -> None:
        ended = self._writer.submit(call, durable=True)
        ended.add_done_callback(self._ended)
        # Shielded: what was begun is done, whether or not its caller is still there.
        await asyncio.shield(ended)

    def _ended(self, ended: asyncio.Future[None]) -> None:
        if not ended.cancelled() and ended.exception() is None:
            self._length -= 1

    def _sent(self, stored: asyncio.Future[bool]) -> None:
        if stored.cancelled() or stored.exception() is not None or not stored.result():
            self._length -= 1
        else:
            self._changed.send()

    def _released(self, released: asyncio.Future[None]) -> None:
        if not released.cancelled() and released.exception() is None:
            self._changed.send()

    def _commit(self, calls: Sequence[_Call[Any]]) -> list[Any]:
        """Run the calls in one transaction; if that fails, each in its own, to see which did."""
        try:
            with self._storage.transaction(durable=calls[0].durable):
                return [_outcome(call, (LeaseLost, DuplicateRequest)) for call in calls]
        except Exception as error:
            if len(calls) == 1:
                return [error]
        return [outcome for call in calls for outcome in self._commit([call])]


def _run_all(calls: Sequence[_Call[Any]]) -> list[Any]:
    return [_outcome(call, (Exception,)) for call in calls]


def _outcome(call: _Call[T], expected: tuple[type[Exception], ...]) -> T | Exception:
    try:
        return call.run()
    except expected as error:
        return error
