"""Sends one request to the container, as Cortex's dequeuer does, and reads its answer.

Source: cortexlabs/cortex, pkg/dequeuer/async_handler.go, and what Go's ``http.Client`` does by
itself: it adds a ``User-Agent`` and ``Accept-Encoding`` when the client sent none, decodes gzip
only if it asked for it, and follows redirects.

aiohttp, because a request costs it 120 microseconds of CPU time where httpx takes 1000
(``python -m bench.http_clients``), and the container shares the machine.
"""

from __future__ import annotations

import asyncio
import errno
import gzip
import io
import logging
import socket
import time
import traceback
import zlib
from collections.abc import AsyncIterator, Callable

import aiohttp
from aiohttp.abc import AbstractStreamWriter
from multidict import CIMultiDict
from yarl import URL

from project.asyncapi import gojson
from project.asyncapi.headers import BY_NAME
from project.asyncapi.types import Headers, Request

logger = logging.getLogger(__name__)

REQUEST_ID_HEADER = "X-Cortex-Request-Id"
GO_USER_AGENT = ("User-Agent", "Go-http-client/1.1")
GO_ACCEPT_ENCODING = ("Accept-Encoding", "gzip")
GO_FIRST = ("Host", "User-Agent", "Content-Length", "Transfer-Encoding")
"""What Go writes before all other fields, which it sorts."""

GO_BUFFER_BYTES = 32 * 1024
"""Go copies a body in pieces of this size, and sends each as a chunk."""

MAX_REQUESTS = 10
"""Of one redirected request; Go's client gives up then."""

KEEPALIVE_SECONDS = 4.0
"""Shorter than uvicorn's 5: a connection is not reused in the moment in which it is closed."""

TCP_KEEPALIVE_SECONDS = 15
"""As Go's dialer has it: a host that lost its power is noticed, though no answer has a deadline."""

NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE})
DESCRIPTOR_RETRY_SECONDS = 1.0

MAX_HEADER_BYTES = 1 << 20
LARGE_BYTES = 1 << 18
"""JSON of this size is read on a thread: it would hold up the event loop for milliseconds."""

Observe = Callable[[int, float], None]


class Unreachable(RuntimeError):
    """The container could not be reached, or the connection broke before its answer ended."""


class NotSuccessful(RuntimeError):
    """The container answered, but not 200 with JSON: sending it again would not help."""


class _GoRequest(aiohttp.ClientRequest):
    """A request whose fields are in the order in which Go writes them."""

    def update_transfer_encoding(self) -> None:
        """The last step of aiohttp that adds a field."""
        super().update_transfer_encoding()
        fields = list(self.headers.items())
        first = [field for name in GO_FIRST for field in fields if field[0] == name]
        self.headers = CIMultiDict(first + [each for each in fields if each[0] not in GO_FIRST])


class _OneChunk(aiohttp.BytesPayload):
    """A body that goes out in one piece with the header and the end: one call of the system."""

    async def write_with_length(
        self, writer: AbstractStreamWriter, content_length: int | None
    ) -> None:
        """The whole of it."""
        await writer.write_eof(self._value)


class RequestHandler:
    """Sends requests to a container, over connections that stay open.

    Args:
        url: where the container is.
        pod_port: as whose ``127.0.0.1`` the container is addressed, wherever it is.
        observe: told the status code and the seconds of every answer, body excluded.
        max_result_bytes: the longest answer that is taken.
    """

    def __init__(self, url: str, pod_port: int, max_result_bytes: int, observe: Observe) -> None:
        self._container = URL(url)
        self._pod = URL.build(scheme="http", host="127.0.0.1", port=pod_port, path="/")
        self._root = self._at_container(self._pod)
        self._host = ("Host", f"127.0.0.1:{pod_port}")
        self._max_result_bytes = max_result_bytes
        self._observe = observe
        # No timeout: a container may take as long as it needs, as on a cluster.
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEPALIVE_SECONDS, socket_factory=_socket
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            request_class=_GoRequest,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
        )

    async def submit(self, request: Request) -> bytes:
        """Send ``request`` and return the JSON value that the container answered, encoded.

        Raises:
            Unreachable: nothing is known of the request's fate; it may be sent again.
            NotSuccessful: the answer is final, and no success.
        """
        headers = _outgoing(request)
        try:
            body, zipped = await self._answer_once_connected(headers, request.body)
        except aiohttp.ClientResponseError as error:
            raise NotSuccessful(f"the answer is no HTTP: {error}") from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise NotSuccessful(f"the answer redirects to {error}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        if len(body) < LARGE_BYTES and not zipped:
            return _reencoded(body)
        return await asyncio.to_thread(self._result, body, zipped)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _answer_once_connected(self, headers: Headers, body: bytes) -> tuple[bytes, bool]:
        """The answer; a lack of descriptors is no fault of the request's, and is waited out."""
        while True:
            try:
                return await self._answer(headers, body)
            except aiohttp.ClientConnectorError as error:
                # aiohttp leaves it in a cycle, and with it the body until garbage is collected.
                traceback.clear_frames(error.__traceback__)
                if error.os_error.errno not in NO_DESCRIPTOR:
                    raise
                logger.warning("no connection to the container, trying again: %s", error.os_error)
            await asyncio.sleep(DESCRIPTOR_RETRY_SECONDS)

    async def _answer(self, headers: Headers, body: bytes) -> tuple[bytes, bool]:
        """The body of the container's answer, after redirects, and whether it is to be inflated."""
        url, method = self._pod, "POST"
        for _ in range(MAX_REQUESTS):
            started = time.monotonic()
            # Cortex streams: a body arrives chunked, and only an empty one has a Content-Length.
            async with self._session.request(
                method,
                self._placed(url),
                data=_chunked(body) if body and method == "POST" else None,
                chunked=True if body and method == "POST" else None,
                headers=(self._host, *headers) if self._is_pod(url) else headers,
                allow_redirects=False,
            ) as response:
                target = response.headers.get("Location")
                if response.status in {301, 302, 303} and target:
                    url, method = _redirected(url, target), "GET"
                    continue
                self._observe(response.status, time.monotonic() - started)
                _check(response)
                encoding = response.headers.get("Content-Encoding", "").lower()
                zipped = encoding == "gzip" and GO_ACCEPT_ENCODING in headers[-1:]
                return await self._read(response), zipped
        raise NotSuccessful(f"stopped after {MAX_REQUESTS} redirects")

    def _is_pod(self, url: URL) -> bool:
        return (url.scheme, url.host, url.port) == ("http", self._pod.host, self._pod.port)

    def _placed(self, url: URL) -> URL:
        """Where to find what the pod has at ``url``."""
        if url is self._pod:  # nearly always
            return self._root
        return self._at_container(url) if self._is_pod(url) else url

    def _at_container(self, url: URL) -> URL:
        return url.with_host(self._container.host or "").with_port(self._container.port)

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        body = bytearray()
        async for chunk in response.content.iter_any():
            body += chunk
            self._check_size(len(body))
        return bytes(body)

    def _result(self, body: bytes, zipped: bool) -> bytes:
        return _reencoded(self._inflated(body) if zipped else body)

    def _inflated(self, body: bytes) -> bytes:
        try:
            inflated = gzip.GzipFile(fileobj=io.BytesIO(body)).read(self._max_result_bytes + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise NotSuccessful(f"the answer is no gzip: {error}") from error
        self._check_size(len(inflated))
        return inflated

    def _check_size(self, size: int) -> None:
        if size > self._max_result_bytes:
            raise NotSuccessful(f"the answer is larger than {self._max_result_bytes} bytes")


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    family, kind, protocol, _, _ = address
    connection = socket.socket(family, kind, protocol)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # Linux's names, of which others lack some
        if hasattr(socket, option):
            number = getattr(socket, option)
            connection.setsockopt(socket.IPPROTO_TCP, number, TCP_KEEPALIVE_SECONDS)
    return connection


def _outgoing(request: Request) -> Headers:
    """The header for the container; Go's own ``Accept-Encoding``, if any, comes last."""
    names = {name for name, _ in request.headers}
    headers = [*request.headers, (REQUEST_ID_HEADER, request.id)]
    if "User-Agent" not in names:
        headers.append(GO_USER_AGENT)
    headers.sort(key=BY_NAME)
    if not names & {"Accept-Encoding", "Range"}:
        headers.append(GO_ACCEPT_ENCODING)
    return tuple(headers)


def _redirected(url: URL, location: str) -> URL:
    try:
        return url.join(URL(location))
    except ValueError as error:
        raise NotSuccessful(f"the answer redirects to {location!r}: {error}") from error


def _chunked(body: bytes) -> _OneChunk | AsyncIterator[bytes]:
    return _OneChunk(body) if len(body) <= GO_BUFFER_BYTES else _chunks(body)


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), GO_BUFFER_BYTES):
        yield body[start : start + GO_BUFFER_BYTES]


def _check(response: aiohttp.ClientResponse) -> None:
    if response.status != 200:
        raise NotSuccessful(f"got status code {response.status}, expected status code 200")
    content_type = response.headers.get("Content-Type", "")
    if not content_type.startswith("application/json"):
        raise NotSuccessful(f"got content type {content_type!r}, expected application/json")


def _reencoded(body: bytes) -> bytes:
    try:
        return gojson.encode(gojson.decode(body))
    except (ValueError, RecursionError) as error:
        raise NotSuccessful(f"the answer is not JSON: {error}") from error
