"""What the queue needs of a storage; SQLite is one, SQS and S3 can be another."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from project.asyncapi.types import Delivery, Depth, Request, Workload


class StorageError(RuntimeError):
    """The storage could not do what was asked; nothing was changed."""


class StorageFull(StorageError):
    """There is no room for what should be stored."""


class DuplicateRequest(StorageError):
    """The id was submitted before, with another body, content type or query."""


class LeaseLost(StorageError):
    """The delivery's lease is over: the request has ended, or is someone else's."""


class Storage(Protocol):
    """Requests and what became of them.

    Methods block. :meth:`get` and :meth:`depth` may be called from a second thread; the others are
    called from one thread at a time.

    Raises:
        StorageError: the storage failed.
        LeaseLost: a delivery is not, or no longer, the request's lease.
    """

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """What is done inside is stored when the block has ended; outside, when a call returns.

        A call that raises :class:`LeaseLost` or :class:`DuplicateRequest` inside changes nothing
        and does not undo the others; any other error undoes the whole block.

        Args:
            durable: wait for the disk. Leases need not: one that is forgotten in a crash is a
                request that is sent again, as after any crash.
        """

    def add(self, request: Request) -> bool:
        """Store a new request, in queue; False if the same request is there already.

        Raises:
            DuplicateRequest: the id is there, for another request.
        """

    def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """Lease up to ``limit`` requests, oldest first, those whose lease has run out too.

        They may be leased ahead of time: who looks sees no difference before :meth:`begin`.
        """

    def renew(self, delivery: Delivery, lease_seconds: float) -> None:
        """Lease it for ``lease_seconds`` from now."""

    def begin(self, delivery: Delivery) -> None:
        """It is sent to the container: from now on it is in progress to those who look."""

    def complete(self, delivery: Delivery, result: bytes) -> None:
        """End it with a result; its payload is dropped."""

    def fail(self, delivery: Delivery, reason: str) -> None:
        """End it without a result; its payload is dropped."""

    def release(self, delivery: Delivery, *, broke: bool) -> None:
        """End the lease: it is back in the queue, at its old place.

        Args:
            broke: count this delivery; one that never reached the container does not count.
        """

    def get(self, request_id: str) -> Workload | None:
        """What is known of a request; None if it was never added, or is purged."""

    def depth(self) -> Depth:
        """How many requests have not ended; what is leased ahead of time is queued."""

    def purge(self, age_seconds: float, limit: int) -> int:
        """Forget up to ``limit`` requests that ended longer ago, one at least if there is one.

        Returns how many: less than ``limit`` when their results are large.
        """

    def close(self) -> None:
        """Let go of the storage; what is in it stays."""
