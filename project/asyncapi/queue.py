"""The queue: a storage seen from the event loop, and the signal that something has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from project.asyncapi.storage import Storage
from project.asyncapi.types import Delivery, Request, Workload

P = ParamSpec("P")
T = TypeVar("T")


class Signal:
    """Wakes everyone who listened before it was sent.

    Call :meth:`listen` first, look at the state next, and only then wait: a change between the look
    and the wait is not missed.
    """

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """An event that the next :meth:`send` sets."""
        return self._event

    def send(self) -> None:
        """Something has changed."""
        self._event.set()
        self._event = asyncio.Event()


class RequestQueue:
    """Runs a storage's calls on one thread, in order, off the event loop.

    Args:
        changed: sent when a request has come into the queue.
    """

    def __init__(self, storage: Storage, changed: Signal) -> None:
        self._storage = storage
        self._changed = changed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="storage")

    async def send(self, request: Request) -> None:
        """Put a new request in the queue; durable on return."""
        stored = self._submit(self._storage.add, request)
        # Not after the await: of a caller who leaves, the request is stored all the same.
        stored.add_done_callback(lambda _: self._changed.send())
        await asyncio.shield(stored)

    async def receive(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` requests, without waiting for one."""
        return await self._call(self._storage.receive, limit)

    async def complete(self, request_id: str, result: bytes) -> None:
        """Store the result of a request in progress."""
        await self._call(self._storage.complete, request_id, result)

    async def fail(self, request_id: str, reason: str) -> None:
        """End a request in progress without a result."""
        await self._call(self._storage.fail, request_id, reason)

    async def release(self, request_id: str) -> None:
        """Put a request in progress back."""
        await self._call(self._storage.release, request_id)
        self._changed.send()

    async def get(self, request_id: str) -> Workload | None:
        """What is known of a request."""
        return await self._call(self._storage.get, request_id)

    def close(self) -> None:
        """Finish the calls that were made, then close the storage."""
        self._thread.shutdown()
        self._storage.close()

    async def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        # Shielded: what was begun is done, whether or not its caller is still there.
        return await asyncio.shield(self._submit(method, *args, **kwargs))

    def _submit(
        self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> asyncio.Future[T]:
        return asyncio.wrap_future(self._thread.submit(method, *args, **kwargs))
