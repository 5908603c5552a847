"""What the queue needs of a storage; SQLite is one, SQS and S3 can be another."""

from __future__ import annotations

from typing import Protocol

from project.asyncapi.types import Delivery, Request, Workload


class StorageError(RuntimeError):
    """The storage could not do what was asked."""


class IllegalTransition(StorageError):
    """A request was not in the state that the step needs."""


class Storage(Protocol):
    """Requests and what became of them. Every call is durable when it returns.

    Methods block; they are called from one thread at a time.

    Raises:
        StorageError: the storage failed; nothing was changed.
        IllegalTransition: the request is unknown, or not in the state that the step needs.
    """

    def add(self, request: Request) -> None:
        """Store a new request, in queue."""

    def receive(self, limit: int) -> list[Delivery]:
        """Take up to ``limit`` requests from the queue, oldest first: now they are in progress."""

    def complete(self, request_id: str, result: bytes) -> None:
        """Store the result of a request in progress; its payload is dropped."""

    def fail(self, request_id: str, reason: str) -> None:
        """End a request in progress without a result; its payload is dropped."""

    def release(self, request_id: str) -> None:
        """Put a request in progress back in the queue, at its old place."""

    def get(self, request_id: str) -> Workload | None:
        """What is known of a request; None if it was never added."""

    def close(self) -> None:
        """Let go of the storage; what is in it stays."""
