"""What a container receives, and which of its answers are results."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from project.asyncapi.handler import NotSuccessful, RequestHandler, Unreachable
from project.asyncapi.types import Request
from tests.helpers import free_port

REQUEST = Request(
    "id-1",
    (("Accept", "*/*"), ("content-type", "text/x"), ("X-Twice", "1"), ("X-Twice", "2")),
    b'{"a": 1}',
)


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """A raw HTTP answer; its Content-Type is JSON unless ``headers`` has one."""
    kind = "" if "ontent-Type" in headers else "Content-Type: application/json\r\n"
    head = f"HTTP/1.1 {status}\r\n{kind}{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def container(answer: bytes) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A container that sends ``answer`` to everything; yields its URL and what it received."""
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        chunked = b"transfer-encoding: chunked" in head.lower()
        received.append(head + (await reader.readuntil(b"0\r\n\r\n") if chunked else b""))
        writer.write(answer)
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", received


def exchange(answer: bytes, request: Request = REQUEST) -> tuple[bytes, bytes]:
    """Send ``request`` to a container that answers ``answer``: what it received, the result."""

    async def run() -> tuple[bytes, bytes]:
        async with container(answer) as (url, received):
            handler = RequestHandler(url, max_concurrency=1)
            try:
                return await handler.submit(request), received[0]
            finally:
                await handler.close()

    result, received = asyncio.run(run())
    return received, result


def test_sent_as_cortex_does() -> None:
    """POST / in chunks, the client's headers as they came, the id added, nothing else."""
    received, _ = exchange(http(b"{}"))

    head, _, body = received.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    assert line == b"POST / HTTP/1.1"
    host, *rest = headers
    assert host.startswith(b"Host: 127.0.0.1:")
    assert rest == [
        b"Accept: */*",
        b"content-type: text/x",
        b"X-Twice: 1",
        b"X-Twice: 2",
        b"X-Cortex-Request-ID: id-1",
        b"Transfer-Encoding: chunked",
    ]
    assert body == b'8\r\n{"a": 1}\r\n0\r\n\r\n'


def test_empty_body_has_a_length() -> None:
    """Nothing to send is said with a Content-Length of 0, not with chunks."""
    received, _ = exchange(http(b"{}"), Request("id-2", (), b""))

    assert b"Content-Length: 0\r\n" in received
    assert b"chunked" not in received


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (http(b'{"b": 1, "a": [1.5, "\xc3\xbc"]}'), '{"a":[1.5,"ü"],"b":1}'),
        (http(b"{}", headers="Content-Type: application/json; charset=utf-8\r\n"), "{}"),
        (http(b"null"), "null"),
        (http(b"[1]"), "[1]"),
        (http(gzip.compress(b"{}"), headers="Content-Encoding: gzip\r\n"), "{}"),
    ],
)
def test_success(answer: bytes, result: str) -> None:
    """200 with JSON is a result, stored with sorted keys as Go does."""
    assert exchange(answer)[1] == result.encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"{}", status="201 Created"), "status code 201"),
        (http(b"{}", status="422 No"), "status code 422"),
        (http(b"{}", status="503 Later"), "status code 503"),
        (http(b"{}", status="302 Found", headers="Location: /x\r\n"), "status code 302"),
        (http(b"{}", status="302 Found", headers="Location: about:blank\r\n"), "headers are wrong"),
        (http(b"{}", headers="Content-Type: text/plain\r\n"), "content type 'text/plain'"),
        (http(b""), "not JSON"),
        (http(b"<html>"), "not JSON"),
        (http(b'{"a": NaN}'), "NaN is no JSON value"),
        (http(b'{"a": 1e999}'), "not JSON"),
        (http(b"[" * 100_000), "not JSON"),
        (http(b"{}", headers="Content-Encoding: gzip\r\n"), "headers are wrong"),
    ],
)
def test_no_success(answer: bytes, reason: str) -> None:
    """Every other answer is final, with a reason for the log."""
    with pytest.raises(NotSuccessful, match=reason):
        exchange(answer)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}"])
def test_broken_connection(answer: bytes) -> None:
    """A connection that breaks before or within the answer leaves the fate open."""
    with pytest.raises(Unreachable):
        exchange(answer)


def test_refused_connection() -> None:
    """So does a port where nobody listens."""

    async def run() -> None:
        handler = RequestHandler(f"http://127.0.0.1:{free_port()}/", 1)
        with pytest.raises(Unreachable, match="ConnectError"):
            await handler.submit(REQUEST)
        await handler.close()

    asyncio.run(run())
