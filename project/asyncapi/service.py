"""What the gateway does, without HTTP: create a workload, look one up."""

from __future__ import annotations

from dataclasses import dataclass

from project.asyncapi import gojson
from project.asyncapi.queue import RequestQueue
from project.asyncapi.types import Headers, Request, Status, Workload


class NotAnObject(ValueError):
    """The result is JSON, but no object: Cortex's gateway cannot hand it out.

    The text is that of Go's ``encoding/json``, which a client of a cluster reads.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )


class PayloadTooLarge(ValueError):
    """The body has more bytes than may be."""


@dataclass(frozen=True, slots=True)
class Service:
    """The business logic of one API's gateway.

    Attributes:
        max_payload_bytes: the longest body.
    """

    queue: RequestQueue
    max_payload_bytes: int

    def check_size(self, size: int) -> None:
        """Refuse a body of ``size`` bytes if it is too long.

        Raises:
            PayloadTooLarge: it is.
        """
        if size > self.max_payload_bytes:
            raise PayloadTooLarge(f"the payload is larger than {self.max_payload_bytes} bytes")

    async def create_workload(self, request_id: str, headers: Headers, body: bytes) -> None:
        """Store a request and put it in the queue."""
        await self.queue.send(Request(request_id, headers, body))

    async def get_workload(self, request_id: str) -> bytes | None:
        """The status object of a request, as JSON, or None if its id is unknown.

        Raises:
            NotAnObject: it is completed with a list, a string, a number or a boolean.
        """
        workload = await self.queue.get(request_id)
        return None if workload is None else _status_object(workload)


def _status_object(workload: Workload) -> bytes:
    start = b'{"id":%b,"status":"%b"' % (gojson.encode(workload.id), workload.status.encode())
    if workload.status is not Status.COMPLETED or workload.timestamp is None:
        return start + b"}\n"
    result = workload.result or b"null"
    kind = gojson.kind(result)
    if kind not in {"object", "null"}:
        raise NotAnObject(kind)
    timestamp = workload.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ").encode()
    return b'%b,"result":%b,"timestamp":"%b"}\n' % (start, result, timestamp)
