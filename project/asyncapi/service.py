"""What the gateway does, without HTTP: create a workload, look one up."""

from __future__ import annotations

import json
import logging
import uuid
from dataclasses import dataclass

from project.asyncapi.queue import RequestQueue
from project.asyncapi.types import Headers, Request, Status, Workload

logger = logging.getLogger(__name__)

REMOVED_HEADERS = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
        "x-cortex-api-name",
        "x-cortex-queue-url",
        "x-cortex-request-id",
        "x-envoy-original-path",
        "x-request-id",
    }
)
"""In lower case: what belongs to the client's own connection, or is set here."""


class NotAnObject(ValueError):
    """The result is JSON, but no object: Cortex's gateway cannot hand it out.

    The text is that of Go's ``encoding/json``, which a client of a cluster reads.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(
            f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
        )


@dataclass(frozen=True, slots=True)
class Service:
    """The business logic of one API's gateway."""

    queue: RequestQueue

    async def create_workload(self, path: str, headers: Headers, body: bytes) -> str:
        """Store a request and put it in the queue; returns its id.

        Args:
            path: as the client sent it, with the raw query: the container finds it in
                ``X-Envoy-Original-Path``, for Cortex's request line carries no query.
        """
        request_id = str(uuid.uuid4())
        kept = tuple(
            (name, value) for name, value in headers if name.lower() not in REMOVED_HEADERS
        )
        added = (("X-Request-Id", request_id), ("X-Envoy-Original-Path", path))
        await self.queue.send(Request(request_id, kept + added, body))
        logger.info("request %s: in_queue", request_id)
        return request_id

    async def get_workload(self, request_id: str) -> dict[str, object] | None:
        """The status object of a request, or None if its id is unknown.

        Raises:
            NotAnObject: it is completed with a list, a string, a number or a boolean.
        """
        workload = await self.queue.get(request_id)
        return None if workload is None else _status_object(workload)


def _status_object(workload: Workload) -> dict[str, object]:
    answer: dict[str, object] = {"id": workload.id, "status": workload.status.value}
    if workload.status is Status.COMPLETED and workload.timestamp is not None:
        answer["result"] = _check_object(json.loads(workload.result or b"null"))
        answer["timestamp"] = workload.timestamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    return answer


def _check_object(result: object) -> object:
    if result is None or isinstance(result, dict):
        return result
    kinds = {list: "array", str: "string", bool: "bool"}
    raise NotAnObject(kinds.get(type(result), "number"))
