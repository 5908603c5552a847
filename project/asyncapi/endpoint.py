"""The gateway's HTTP: Cortex's async-gateway, as the ingress calls it.

Source: cortexlabs/cortex, cmd/async-gateway/main.go and pkg/async-gateway/endpoint.go; the answers
to cross-origin requests are those of gorilla/handlers' ``CORS`` as configured there.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from project.asyncapi import gojson, headers
from project.asyncapi.queue import QueueFull
from project.asyncapi.service import NotAnObject, PayloadTooLarge, Service
from project.asyncapi.storage import DuplicateRequest, StorageError, StorageFull
from project.asyncapi.uploads import (
    MAX_BYTES,
    TooManyUploads,
    Upload,
    Uploads,
    UploadStalled,
)

logger = logging.getLogger(__name__)

NOT_PASSED_ON = frozenset(
    {
        "Content-Length",
        "Host",
        "Trailer",
        "X-Cortex-Api-Name",
        "X-Cortex-Queue-Url",
        "X-Cortex-Request-Id",
    }
)
"""What the container gets from the dequeuer, or not at all."""

STALLED_SECONDS = 300.0
"""In which nothing of a body comes: Envoy's ``stream_idle_timeout``."""

GO_BUFFER_BYTES = 2048
"""Go's server knows the length of an answer that fits in its buffer; others go out chunked."""

CLOSE = {"Connection": "close"}
LATER = {"Retry-After": "5"}
FAILURES: tuple[tuple[type[Exception], int, dict[str, str]], ...] = (
    (PayloadTooLarge, 413, CLOSE),
    (UploadStalled, 408, CLOSE),
    (TooManyUploads, 503, CLOSE | LATER),
    (QueueFull, 503, LATER),
    (NotAnObject, 500, {}),
    (DuplicateRequest, 409, {}),
    (StorageFull, 507, LATER),
    (StorageError, 500, {}),
)
"""What is answered, by the first that fits; one that ends in a body ends its connection."""

NOT_SENT = "failed to send message to queue: "

_ALLOWED_HEADERS = frozenset({"Content-Type", "X-Requested-With", "User-Agent"})
_SIMPLE_HEADERS = frozenset({"Accept", "Accept-Language", "Content-Language", "Origin", ""})
_ALLOWED_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "OPTIONS"})
_SIMPLE_METHODS = frozenset({"GET", "HEAD", "POST"})
_ANY_ORIGIN = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Origin": "*",
}
_EXPOSED = {"Access-Control-Expose-Headers": "Content-Length,Content-Range"}


class Gateway:
    """The ASGI app of one API's gateway, below its endpoint.

    Args:
        max_upload_bytes: of bodies that are read at the same time.
    """

    def __init__(self, service: Service, max_upload_bytes: int = MAX_BYTES) -> None:
        self._service = service
        # One body of the largest size must fit.
        self._uploads = Uploads(max(max_upload_bytes, service.max_payload_bytes))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        with_origin = bool(request.headers.get("origin"))
        if request.method == "OPTIONS":
            answer = _preflight(request) if with_origin else Response()
        else:
            try:
                answer = await self._route(request)
            except ClientDisconnect:
                return  # nobody would read an answer: the client left before its request ended
            if with_origin:
                answer.headers.update(_ANY_ORIGIN | _EXPOSED)
        await answer(scope, receive, send)

    async def _route(self, request: Request) -> Response:
        name = request.scope["path"].removeprefix("/")
        if name == "healthz":
            return _plain("ok")
        if "/" in name:
            return _no_such_page()
        if request.method != ("GET" if name else "POST"):
            return Response(status_code=405)
        try:
            return await (self._poll(name) if name else self._submit(request))
        except Exception as error:
            return _failure(request, error)

    async def _submit(self, request: Request) -> Response:
        """Accept a request: 200 with its id once it is stored, whatever it holds."""
        request_id = gojson.text(request.headers.get("x-request-id", "").encode("latin-1"))
        if not request_id:
            return _plain("error: missing x-request-id key in request header", status=400)
        self._service.check_size(int(request.headers.get("content-length", 0)))
        sent = headers.to_go(request.headers.raw, without=NOT_PASSED_ON)
        with self._uploads.begin() as upload:  # to the end: a body that waits for the disk counts
            await self._read(request, upload)
            await self._service.create_workload(request_id, sent, upload.whole())
        return _json(b'{"id":%b}\n' % gojson.encode(request_id))

    async def _read(self, request: Request, upload: Upload) -> None:
        try:
            async with asyncio.timeout(STALLED_SECONDS) as stalled:
                while await self._read_piece(request, upload):
                    stalled.reschedule(asyncio.get_running_loop().time() + STALLED_SECONDS)
        except TimeoutError as error:
            raise UploadStalled(f"the body did not go on for {STALLED_SECONDS:g} s") from error

    async def _read_piece(self, request: Request, upload: Upload) -> bool:
        """Read what has come of the body; returns whether there is more to come."""
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        upload.add(message.get("body", b""))
        self._service.check_size(upload.size)
        more: bool = message.get("more_body", False)
        return more

    async def _poll(self, request_id: str) -> Response:
        answer = await self._service.get_workload(request_id)
        if answer is None:
            return _plain(f"error: id {request_id} not found", status=404)
        return _json(answer)


def _failure(request: Request, error: Exception) -> Response:
    """The answer to a request that could not be done."""
    known = [(status, more) for kind, status, more in FAILURES if isinstance(error, kind)]
    if not known:
        raise error
    status, more = known[0]
    if status >= 500:
        logger.error("%s %s: %s", request.method, request.scope["path"], error)
    storing = status == 500 and request.method == "POST"
    return _plain(f"error: {NOT_SENT if storing else ''}{error}", status, more)


def _preflight(request: Request) -> Response:
    if "access-control-request-method" not in request.headers:
        return Response(status_code=400)
    method = request.headers["access-control-request-method"]
    if method not in _ALLOWED_METHODS:
        return Response(status_code=405)
    asked = request.headers.get("access-control-request-headers", "").split(",")
    beyond = [headers.canonical(name.strip()) for name in asked]
    beyond = [name for name in beyond if name not in _SIMPLE_HEADERS]
    if not _ALLOWED_HEADERS.issuperset(beyond):
        return Response(status_code=403)
    allowed = dict(_ANY_ORIGIN)
    if beyond:
        allowed["Access-Control-Allow-Headers"] = ",".join(beyond)
    if method not in _SIMPLE_METHODS:
        allowed["Access-Control-Allow-Methods"] = method
    return Response(headers=allowed)


def _json(text: bytes) -> Response:
    answer = Response(text, media_type="application/json")
    if len(text) > GO_BUFFER_BYTES:
        del answer.headers["content-length"]  # and so it goes out chunked
    return answer


def _plain(text: str, status: int = 200, more: Mapping[str, str] | None = None) -> Response:
    # Not PlainTextResponse: Cortex's text/plain has no charset.
    fields = {"Content-Type": "text/plain", **(more or {})}
    return Response(text, status_code=status, headers=fields)


def _no_such_page() -> Response:
    """What Go's router says of a path with more than one segment."""
    return Response(
        "404 page not found\n",
        status_code=404,
        headers={
            "Content-Type": "text/plain; charset=utf-8",
            "X-Content-Type-Options": "nosniff",
        },
    )
