"""What a container receives, and which of its answers are results."""

from __future__ import annotations

import asyncio
import gc
import gzip
import resource
import sys
import threading
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from project.asyncapi import gojson, handler
from project.asyncapi.handler import (
    GO_BUFFER_BYTES,
    LARGE_BYTES,
    MAX_REQUESTS,
    NotSuccessful,
    RequestHandler,
    Unreachable,
)
from project.asyncapi.types import Request
from tests.helpers import eventually, free_port, listening

REQUEST = Request(
    "id-1",
    (("Accept", "*/*"), ("Content-Type", "text/x"), ("X-Twice", "1"), ("X-Twice", "2")),
    b'{"a": 1}',
)
MAX_RESULT_BYTES = 1 << 20
POD_PORT = 8080  # nothing listens there: the container is elsewhere
GZIP = "Content-Encoding: gzip\r\n"


def http(body: bytes, *, status: str = "200 OK", headers: str = "") -> bytes:
    """A raw HTTP answer; its Content-Type is JSON unless ``headers`` has one."""
    kind = "" if "ontent-Type" in headers else "Content-Type: application/json\r\n"
    head = f"HTTP/1.1 {status}\r\n{kind}{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def found(target: str, status: str = "302 Found") -> bytes:
    """A redirect."""
    return http(b"", status=status, headers=f"Location: {target}\r\n")


@asynccontextmanager
async def container(answers: Iterable[bytes]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A container that sends each answer once; yields its URL and what it received.

    It closes the connection after an answer of no length.
    """
    received: list[bytes] = []
    remaining = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep = True
        while keep:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                break
            chunked = b"transfer-encoding: chunked" in head.lower()
            received.append(head + (await reader.readuntil(b"0\r\n\r\n") if chunked else b""))
            answer = next(remaining)
            writer.write(answer)
            keep = answer.startswith(b"HTTP") and not answer.endswith(b"cut")

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/", received


Observed = list[tuple[int, float]]


async def submit_all(
    url: str, requests: Sequence[Request], max_result_bytes: int = MAX_RESULT_BYTES
) -> tuple[list[bytes], Observed]:
    """The results of ``requests``, sent one after another, and what was observed."""
    observed: Observed = []
    handler = RequestHandler(
        url, POD_PORT, max_result_bytes, lambda status, seconds: observed.append((status, seconds))
    )
    try:
        return [await handler.submit(request) for request in requests], observed
    finally:
        await handler.close()


def exchange(
    *answers: bytes, request: Request = REQUEST, max_result_bytes: int = MAX_RESULT_BYTES
) -> tuple[list[bytes], bytes]:
    """Send ``request`` to a container with ``answers``: what it received, the result."""

    async def run() -> tuple[list[bytes], bytes]:
        async with container(answers) as (url, received):
            (result,), _ = await submit_all(url, [request], max_result_bytes)
            return received, result

    return asyncio.run(run())


def fields(received: bytes) -> list[bytes]:
    """The lines of the header, without the first and the Host."""
    return received.partition(b"\r\n\r\n")[0].split(b"\r\n")[2:]


def test_sent_as_cortex_does() -> None:
    """POST / in chunks; Go's first fields, then the client's and the id, sorted; gzip last."""
    (received,), _ = exchange(http(b"{}"))

    head, _, body = received.partition(b"\r\n\r\n")
    line, host, *rest = head.split(b"\r\n")
    assert line == b"POST / HTTP/1.1"
    assert host == b"Host: 127.0.0.1:8080"
    assert rest == [
        b"User-Agent: Go-http-client/1.1",
        b"Transfer-Encoding: chunked",
        b"Accept: */*",
        b"Content-Type: text/x",
        b"X-Cortex-Request-Id: id-1",
        b"X-Twice: 1",
        b"X-Twice: 2",
        b"Accept-Encoding: gzip",
    ]
    assert body == b'8\r\n{"a": 1}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    ("sent", "line"),
    [
        (("User-Agent", "curl/8"), b"User-Agent: curl/8"),
        (("Accept-Encoding", "br"), b"Accept-Encoding: br"),
        (("Range", "bytes=0-1"), b"Range: bytes=0-1"),
        (("X-Name", "ü"), "X-Name: ü".encode()),
        (("Content-Encoding", "gzip"), b"Content-Encoding: gzip"),
    ],
)
def test_client_s_fields_are_its_own(sent: tuple[str, str], line: bytes) -> None:
    """Go adds a field only where the client sent none, and asks for gzip for whole answers."""
    (received,), _ = exchange(http(b"{}"), request=Request("id-2", (sent,), b"x"))

    lines = fields(received)
    assert line in lines
    name = line.partition(b":")[0]
    assert sum(each.startswith(name + b":") for each in lines) == 1
    asked = b"Accept-Encoding: gzip" in lines
    assert asked is (name not in {b"Accept-Encoding", b"Range"})


def test_empty_body_has_a_length() -> None:
    """Nothing to send is said with a Content-Length of 0, not with chunks."""
    (received,), _ = exchange(http(b"{}"), request=Request("id-2", (), b""))

    assert fields(received) == [
        b"User-Agent: Go-http-client/1.1",
        b"Content-Length: 0",
        b"X-Cortex-Request-Id: id-2",
        b"Accept-Encoding: gzip",
    ]


def test_large_body_comes_in_pieces() -> None:
    """Each as large as Go's buffer."""
    body = b"x" * (GO_BUFFER_BYTES + 1)
    (received,), _ = exchange(http(b"{}"), request=Request("id-2", (), body))

    chunks = received.partition(b"\r\n\r\n")[2]
    assert chunks.startswith(b"%x\r\n" % GO_BUFFER_BYTES)
    assert chunks.endswith(b"x\r\n1\r\nx\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (http(b'{"b": 1.0, "a": [1.50, "\xc3\xbc"]}'), '{"a":[1.5,"ü"],"b":1}'),
        (http(b"{}", headers="Content-Type: application/json; charset=utf-8\r\n"), "{}"),
        (http(b"{}", headers="Content-Type: application/json-seq\r\n"), "{}"),
        (http(b"null"), "null"),
        (http(b"[1]"), "[1]"),
        (http(b'{"a":1} garbage'), '{"a":1}'),
        (http(b'{"a":"\xff"}'), '{"a":"\ufffd"}'),
        (http(gzip.compress(b"{}"), headers=GZIP), "{}"),
        (http(b"[%b]" % (b"1," * LARGE_BYTES + b"1")), f"[{'1,' * LARGE_BYTES}1]"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
            "{}",
        ),
        (http(b"{}", headers=f"X-Long: {'x' * 100_000}\r\n"), "{}"),
    ],
)
def test_success(answer: bytes, result: str) -> None:
    """200 with JSON is a result, stored as Go writes it."""
    assert exchange(answer)[1] == result.encode()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (http(b"{}", status="201 Created"), "status code 201"),
        (http(b"", status="204 No Content"), "status code 204"),
        (http(b"{}", status="422 No"), "status code 422"),
        (http(b"{}", status="503 Later", headers="Retry-After: 1\r\n"), "status code 503"),
        (found("/x", "307 Temporary Redirect"), "status code 307"),
        (http(b"", status="302 Found"), "status code 302"),
        (http(b"{}", headers="Content-Type: text/plain\r\n"), "content type 'text/plain'"),
        (http(b"{}", headers="Content-Type: Application/JSON\r\n"), "content type"),
        (http(b"{}", headers="Content-Type: application/problem+json\r\n"), "content type"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "content type ''"),
        (http(b""), "not JSON"),
        (http(b"<html>"), "not JSON"),
        (http(b"\xef\xbb\xbf{}"), "not JSON"),
        (http(b'{"a": NaN}'), "NaN is no JSON value"),
        (http(b'{"a": 1e999}'), "not JSON"),
        (http(b"[" * 100_000), "not JSON"),
        (http(b"{}", headers=GZIP), "no gzip"),
        (http(gzip.compress(b"{}")[:-9], headers=GZIP), "no gzip"),
        (http(b"{}", headers="Content-Encoding: deflate\r\n")[:-2] + b"x\x9c", "not JSON"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP"),
        (found("about:blank"), "redirects to"),
        (found("http://[half/"), "redirects to"),
    ],
)
def test_no_success(answer: bytes, reason: str) -> None:
    """Every other answer is final, with a reason for the log."""
    with pytest.raises(NotSuccessful, match=reason):
        exchange(answer)


def test_gzip_that_the_client_asked_for_is_not_decoded() -> None:
    """Go decodes only what it asked for itself: the result is no JSON."""
    request = Request("id-2", (("Accept-Encoding", "gzip"),), b"x")

    with pytest.raises(NotSuccessful, match="not JSON"):
        exchange(http(gzip.compress(b"{}"), headers=GZIP), request=request)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other"])
def test_redirect_is_followed(status: str) -> None:
    """With a GET without a body, the client's header and the query of the target."""
    (first, second), result = exchange(found("/elsewhere?x=1", status), http(b'{"a":1}'))

    assert first.startswith(b"POST / HTTP/1.1\r\n")
    assert second.startswith(b"GET /elsewhere?x=1 HTTP/1.1\r\n")
    assert b"X-Twice: 2" in fields(second)
    assert b"chunked" not in second
    assert result == b'{"a":1}'


def test_redirect_to_the_pod() -> None:
    """A container that puts its Host into a redirect means itself, wherever it is."""
    (_, second), _ = exchange(found("http://127.0.0.1:8080/elsewhere?x=1"), http(b"{}"))

    assert second.startswith(b"GET /elsewhere?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n")


def test_redirect_away() -> None:
    """Another host is called by its own name."""

    async def run() -> None:
        async with (
            container([http(b"{}")]) as (other, received),
            container([found(other)]) as (url, _),
        ):
            await submit_all(url, [REQUEST])
        assert received[0].split(b"\r\n")[1] == f"Host: {other[7:-1]}".encode()

    asyncio.run(run())


def test_redirects_end() -> None:
    """After ten requests Go gives up."""

    async def run() -> None:
        async with container([found("/x")] * (MAX_REQUESTS + 1)) as (url, received):
            with pytest.raises(NotSuccessful, match="stopped after 10 redirects"):
                await submit_all(url, [REQUEST])
            assert len(received) == 10

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "headers"), [(b'{"a":"%b"}' % (b"x" * 93), ""), (gzip.compress(b"0" * 101), GZIP)]
)
def test_result_is_bounded(body: bytes, headers: str) -> None:
    """The limit is named; what is compressed counts as what it becomes."""
    with pytest.raises(NotSuccessful, match="larger than 100 bytes"):
        exchange(http(body, headers=headers), max_result_bytes=100)


def test_result_of_the_largest_size() -> None:
    """The limit itself is allowed."""
    body = b'{"a":"%b"}' % (b"x" * 92)

    assert exchange(http(body), max_result_bytes=100)[1] == body


def test_answers_are_observed_and_connections_kept() -> None:
    """Each answer's code and time is told, and one connection serves them all."""

    async def run() -> Observed:
        connections: list[object] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            connections.append(writer)
            for _ in range(2):
                await reader.readuntil(b"0\r\n\r\n")
                writer.write(http(b"{}"))

        async with listening(serve) as port:
            _, observed = await submit_all(f"http://127.0.0.1:{port}/", [REQUEST, REQUEST])
        assert len(connections) == 1
        return observed

    observed = asyncio.run(run())
    assert [status for status, _ in observed] == [200, 200]
    assert all(0 < seconds < 60 for _, seconds in observed)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}cut"])
def test_broken_connection(answer: bytes) -> None:
    """A connection that breaks before or within the answer leaves the fate open."""
    answer = answer.replace(b"Content-Length", b"Content-Type: application/json\r\nContent-Length")
    with pytest.raises(Unreachable):
        exchange(answer)


def test_refused_connection() -> None:
    """So does a port where nobody listens."""
    with pytest.raises(Unreachable, match="ClientConnectorError"):
        asyncio.run(submit_all(f"http://127.0.0.1:{free_port()}/", [REQUEST]))


@pytest.mark.parametrize("answers", [None, [b""]], ids=["refused", "broken"])
def test_garbage_has_no_bodies(answers: list[bytes] | None) -> None:
    """It is looked for rarely: what a failed request leaves to it must be small."""
    body = bytes(5000)

    async def submit(url: str) -> None:
        sent = RequestHandler(url, POD_PORT, MAX_RESULT_BYTES, lambda *_: None)
        with pytest.raises(Unreachable):
            await sent.submit(Request("id-1", (), body))
        await sent.close()

    async def run() -> None:
        if answers is None:
            await submit(f"http://127.0.0.1:{free_port()}/")
            return
        async with container(answers) as (url, _):
            await submit(url)

    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        asyncio.run(run())
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()


def tcp_timers(port: int) -> list[str]:
    """Kind (02: keepalive) and hundredths of a second (hexadecimal) of connections to a port."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
    return [line[5] for line in lines if line[2].endswith(f":{port:04X}")]


def test_peer_that_is_gone_is_noticed() -> None:
    """The kernel asks after 15 s of silence, though an answer may take for ever."""

    async def run() -> None:
        asked, go_on = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"0\r\n\r\n")
            asked.set()
            await go_on.wait()
            writer.write(http(b"{}"))

        async with listening(serve) as port:
            submitting = asyncio.create_task(submit_all(f"http://127.0.0.1:{port}/", [REQUEST]))
            await asked.wait()
            timers = tcp_timers(port)
            go_on.set()
            await submitting
        assert any(timer.startswith("02:") and int(timer[3:], 16) <= 1500 for timer in timers)

    asyncio.run(run())


def test_no_descriptor_is_waited_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is this process that cannot connect: the container has done nothing wrong."""
    monkeypatch.setattr(handler, "DESCRIPTOR_RETRY_SECONDS", 0.01)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def run() -> list[bytes]:
        async with container([http(b"{}")]) as (url, _):
            submitting = asyncio.create_task(submit_all(url, [REQUEST]))
            resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
            try:
                await eventually(lambda: "Too many open files" in caplog.text)
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            return (await submitting)[0]

    assert asyncio.run(run()) == [b"{}"]


def test_gzip_is_inflated_off_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small answer may be large inflated."""
    threads = []
    decode = gojson.decode

    def noted(body: bytes) -> object:
        threads.append(threading.current_thread())
        return decode(body)

    monkeypatch.setattr(gojson, "decode", noted)
    exchange(http(gzip.compress(b"{}"), headers=GZIP))
    exchange(http(b"{}"))

    assert [each is threading.main_thread() for each in threads] == [False, True]
