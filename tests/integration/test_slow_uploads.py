"""Clients of the gateway that send slowly, not to the end, or too much: they hold up nobody."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from project.asyncapi import connection, endpoint, uploads
from project.asyncapi.endpoint import Gateway
from project.asyncapi.ingress import Ingress
from project.asyncapi.queue import RequestQueue
from project.asyncapi.server import Server, listen
from project.asyncapi.service import Service
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.waiting import Signal
from tests.helpers import DEADLINE, wait_until

MAX_PAYLOAD = 1000
MAX_UPLOADS = 2500
POST = b"POST /sentiment HTTP/1.1\r\nHost: a\r\n"
GET = b"GET /sentiment/healthz HTTP/1.1\r\nHost: a\r\n"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """The ingress with a gateway, as the runtime has it; no dequeuer runs."""
    storage = SQLiteStorage(tmp_path / "queue.sqlite3")
    service = Service(RequestQueue(storage, Signal(), 1000), MAX_PAYLOAD)
    ingress = Ingress({"sentiment": Gateway(service, MAX_UPLOADS)})
    server = Server(ingress, listen("127.0.0.1", 0), [("server", "istio-envoy")])
    thread = threading.Thread(target=asyncio.run, args=(server.run_until_stopped(),))
    thread.start()
    wait_until(lambda: server.started)
    yield server
    server.should_exit = server.force_exit = True
    thread.join(DEADLINE)
    storage.close()


@pytest.fixture
def url(server: Server) -> str:
    """The API's."""
    return f"http://127.0.0.1:{server.port}/sentiment"


def connect(server: Server, beginning: bytes = b"") -> socket.socket:
    """A connection of its own, on which ``beginning`` is sent."""
    client = socket.create_connection(("127.0.0.1", server.port), DEADLINE)
    client.sendall(beginning)
    return client


def answer(client: socket.socket) -> bytes:
    """All that comes until the server closes the connection."""
    with client, client.makefile("rb") as stream:
        return stream.read()


def test_unfinished_requests_block_nobody(server: Server, url: str) -> None:
    """Half a head, half a body, chunks without an end: others are answered meanwhile."""
    beginnings = [b"", b"POST /", POST + b"Content-Length: 9\r\n\r\n{",
                  POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for beginning in beginnings * 25:
            stack.enter_context(connect(server, beginning))

        assert httpx.post(url, content=b"a").status_code == 200


@pytest.mark.parametrize("beginning", [b"", b"PO", POST, POST + b"X-Name: x"])
def test_head_that_does_not_come(
    server: Server, beginning: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection without a whole head is closed after a while, the first or a later one."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.5)
    assert answer(connect(server, beginning)) == b""

    if beginning:
        monkeypatch.setattr(connection, "HEAD_SECONDS", DEADLINE)
        client = connect(server, GET + b"\r\n")
        assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
        client.sendall(beginning)
        assert answer(client) in {b"ok", b""}  # what of the first answer came apart


def test_slow_body_is_no_slow_head(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the head is there, its time does not count any more."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 1.0)
    with connect(server, POST + b"Connection: close\r\nContent-Length: 2\r\n\r\n1") as client:
        silent = connect(server)
        assert answer(silent) == b""  # the time has passed
        client.sendall(b"2")
        assert answer(client).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "endless",
    [b"x" * 65536, b"X-Name: x\r\n" * 6000],
    ids=["one long field", "many fields"],
)
def test_head_without_an_end(server: Server, endless: bytes) -> None:
    """It is refused as Envoy does, not kept until memory is full."""
    closed = contextlib.suppress(ConnectionError)  # while more is sent
    with connect(server, POST + b"X-Long: ") as client, closed:
        for _ in range(100):
            client.sendall(endless)
        pytest.fail("6 MB of a head were taken")


def test_answer_to_a_head_without_an_end(server: Server) -> None:
    """431 and its text; the server is Envoy."""
    long = connect(server, POST + b"X-Long: " + b"x" * (connection.MAX_HEAD_BYTES - 30))
    long.sendall(b"x" * 30)  # no more than is read, or the answer may be lost with the connection

    head, _, body = answer(long).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert b"server: istio-envoy" in head
    assert b"connection: close" in head
    assert body == b"Request Header Fields Too Large"


def test_trailers_without_an_end(server: Server) -> None:
    """What follows a body is no way around the limit."""
    head = POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
    with connect(server, head) as client, contextlib.suppress(ConnectionError):
        for _ in range(100):
            client.sendall(b"X-Name: x\r\n" * 6000)
        pytest.fail("6 MB of trailers were taken")


def test_body_in_small_chunks(server: Server) -> None:
    """The framing of a body is no head, however much of it there is."""
    chunks = b"1;%b\r\nx\r\n" % (b"e" * 200)
    head = POST + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"

    sent = connect(server, head + chunks * 900 + b"0\r\n\r\n")

    assert answer(sent).startswith(b"HTTP/1.1 200 ")


def test_stalled_body_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that does not go on ends with a status of its own."""
    monkeypatch.setattr(endpoint, "STALLED_SECONDS", 0.1)

    stalled = answer(connect(server, POST + b"Content-Length: 9\r\n\r\n{"))

    assert stalled.startswith(b"HTTP/1.1 408 ")
    assert stalled.endswith(b"error: the body did not go on for 0.1 s")


def test_uploads_are_bounded_together(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 for what does not fit beside the others, which go on; then there is room again."""
    monkeypatch.setattr(uploads, "SMALL_BYTES", 50)
    head = POST + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % MAX_PAYLOAD
    half = [connect(server, head + b"x" * 900) for _ in range(2)]

    def refused() -> httpx.Response | None:
        response = httpx.post(url, content=b"x" * MAX_PAYLOAD)
        return response if response.status_code == 503 else None

    response = wait_until(refused)
    assert response.headers["retry-after"] == "5"
    assert response.headers["connection"] == "close"
    assert response.text == (
        "error: requests that are being received have 1700 bytes, and may have 2500"
    )
    assert httpx.post(url, content=b"small").status_code == 200
    for client in half:
        client.sendall(b"x" * 100)
        assert answer(client).startswith(b"HTTP/1.1 200 ")
    assert httpx.post(url, content=b"x" * MAX_PAYLOAD).status_code == 200


def test_client_that_leaves_gives_its_room_back(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An upload that was never ended counts no longer than its connection."""
    monkeypatch.setattr(uploads, "SMALL_BYTES", 0)
    for _ in range(5):
        connect(server, POST + b"Content-Length: 1000\r\n\r\n" + b"x" * 999).close()

    wait_until(lambda: httpx.post(url, content=b"x" * MAX_PAYLOAD).status_code == 200)


def test_clients_leave_descriptors_to_others(
    server: Server, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond a number, a connection is closed at once; those that there are go on."""
    monkeypatch.setattr(connection, "_max_connections", lambda: 2)
    first = connect(server, GET + b"Connection: close\r\n")
    second = connect(server)
    wait_until(lambda: len(server.server_state.connections) == 2)

    assert answer(connect(server)) == b""

    first.sendall(b"\r\n")
    assert answer(first).startswith(b"HTTP/1.1 200 ")
    second.close()
    wait_until(lambda: not server.server_state.connections)
    assert httpx.post(url).status_code == 200
