"""The runtime, stopping at a point between two steps of its storage: it can be killed just there.

FAULT=complete:before python -m tests.faults <arguments of python -m project.asyncapi>

When a transaction with the step in it is about to commit (before), or has committed (after), the
file ``reached`` appears, and the storage waits for the file ``resume``. The rest goes on.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from project.asyncapi import runtime
from project.asyncapi.__main__ import main
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.types import Delivery, Request
from tests.helpers import wait_until

STEP, _, MOMENT = os.environ["FAULT"].partition(":")


class PausingStorage(SQLiteStorage):
    """Waits once, at the step and the moment that ``FAULT`` names."""

    _steps: frozenset[str] = frozenset()

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        """As everywhere, with a pause."""
        self._steps = frozenset()
        with super().transaction(durable=durable):
            yield
            self._pause("before")
        self._pause("after")

    def add(self, request: Request) -> bool:
        """Noted."""
        self._steps |= {"add"}
        return super().add(request)

    def receive(self, limit: int, lease_seconds: float) -> list[Delivery]:
        """Noted if there was anything."""
        deliveries = super().receive(limit, lease_seconds)
        self._steps |= {"receive"} if deliveries else set()
        return deliveries

    def begin(self, delivery: Delivery) -> None:
        """Noted."""
        self._steps |= {"begin"}
        super().begin(delivery)

    def complete(self, delivery: Delivery, result: bytes) -> None:
        """Noted."""
        self._steps |= {"complete"}
        super().complete(delivery, result)

    def _pause(self, moment: str) -> None:
        if STEP in self._steps and moment == MOMENT:
            Path("reached").touch()
            wait_until(Path("resume").exists)


if __name__ == "__main__":
    vars(runtime)["SQLiteStorage"] = PausingStorage
    sys.exit(main())
