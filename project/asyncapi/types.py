"""The records that pass between the modules, and the states of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum, unique

Headers = tuple[tuple[str, str], ...]
"""Names in Go's canonical case and values, sorted by name, repeated ones too."""


@unique
class Status(StrEnum):
    """Where a request is, in Cortex's words."""

    #: Accepted and stored; never sent to the container yet.
    IN_QUEUE = "in_queue"
    #: Sent to the container, and perhaps waiting to be sent again.
    IN_PROGRESS = "in_progress"
    #: The container answered, and the answer is stored.
    COMPLETED = "completed"
    #: The container refused it, or it broke the container too often.
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Request:
    """What a client submitted."""

    id: str
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request that is leased to whoever received it.

    Attributes:
        receives: how often it was sent, this time included; what no dequeuer lived to end, and
            what was given back unsent, is not counted.
        receipt: names this lease; a later delivery of the same request has another.
        damaged: the storage has lost something of it: it cannot be sent.
    """

    request: Request
    receives: int
    receipt: int
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """What is known of a request.

    Attributes:
        result: the container's answer as JSON text, once completed.
        timestamp: when it was completed or failed, in UTC.
        reason: why it failed; for the log, clients do not see it.
    """

    id: str
    status: Status
    result: bytes | None = None
    timestamp: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Depth:
    """How many requests wait to be sent, and how many are with the container.

    Attributes:
        oldest_age_seconds: since the oldest that waits was submitted; 0 if none does.
    """

    queued: int
    in_flight: int
    oldest_age_seconds: float = field(default=0.0, compare=False)
