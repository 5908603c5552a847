"""Clients that send slowly, not to the end, or leave: they hold up nobody."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from project.app import create_app
from project.settings import Settings
from tests.helpers import DEADLINE, FakeClassifier, serve, wait_until

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"


@pytest.fixture
def url(classifier: FakeClassifier) -> Iterator[str]:
    """A container that is ready, with room for two requests."""
    settings = Settings(max_waiting_requests=2, request_timeout_seconds=2)
    with serve(create_app(settings, lambda _: classifier)) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").status_code == 200)
        yield url


def connect(url: str) -> socket.socket:
    """A connection of its own."""
    address = httpx.URL(url)
    return socket.create_connection((address.host, address.port or 80))


def test_unfinished_requests_block_nobody(url: str) -> None:
    """Half a head, half a body, chunks without an end: others are answered meanwhile."""
    beginnings = [b"", b"POST /", HEAD + b"Content-Length: 9\r\n\r\n{",
                  HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"]  # fmt: skip
    with contextlib.ExitStack() as stack:
        for beginning in beginnings * 25:
            stack.enter_context(connect(url)).sendall(beginning)

        assert httpx.get(f"{url}/healthcheck").status_code == 200
        assert httpx.post(url, json="a").status_code == 200


@pytest.mark.parametrize("beginning", [b"", b"{"])
def test_slow_body_is_refused(url: str, beginning: bytes) -> None:
    """A body that does not arrive in time, or not at all, ends with a status of its own."""
    with connect(url) as connection:
        head = HEAD + b"Connection: close\r\nContent-Length: 9\r\n\r\n"
        connection.sendall(head + beginning)
        with connection.makefile("rb") as stream:  # its head and its body may come apart
            answer = stream.read()

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body did not arrive in 2 s" in answer


def test_body_byte_by_byte(url: str) -> None:
    """It takes its time, and is read all the same."""
    body = b'{"input_text": "abc"}'
    with connect(url) as connection:
        head = HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        connection.sendall(head)
        for byte in body:
            connection.sendall(bytes([byte]))
        with connection.makefile("rb") as stream:
            answer = stream.read()

    assert b'"score":0.03' in answer


def test_client_that_leaves_is_no_error(
    url: str, classifier: FakeClassifier, caplog: pytest.LogCaptureFixture
) -> None:
    """Mid-body and mid-inference: it is logged as such, and nothing is left behind."""
    caplog.set_level("INFO", logger="project.access")
    with connect(url) as connection:
        connection.sendall(HEAD + b"Content-Length: 9\r\n\r\n{")
    classifier.gate.clear()
    with contextlib.suppress(httpx.ReadTimeout):
        httpx.post(url, json="b", timeout=0.3)

    def left() -> bool:
        kinds = [getattr(record, "fields", {}).get("error") for record in caplog.records]
        return kinds.count("client-left") == 2

    wait_until(left)
    classifier.gate.set()
    assert all(record.levelname == "INFO" for record in caplog.records)
    assert httpx.post(url, json="c").status_code == 200


def test_queued_requests_wait_for_room(classifier: FakeClassifier) -> None:
    """Where a direct caller is told to come back, one from the queue is answered later."""
    settings = Settings(max_waiting_requests=1)
    with (
        serve(create_app(settings, lambda _: classifier)) as url,
        ThreadPoolExecutor() as pool,
        httpx.Client(timeout=DEADLINE) as client,
    ):
        wait_until(lambda: client.get(f"{url}/healthcheck").status_code == 200)
        classifier.gate.clear()
        computed = pool.submit(client.post, url, json="first")
        wait_until(lambda: ["first"] in classifier.calls)
        queued = pool.submit(client.post, url, json="b", headers={"X-Cortex-Request-ID": "1"})
        refused = client.post(url, json="c")
        classifier.gate.set()

        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert [computed.result().status_code, queued.result().status_code] == [200, 200]
