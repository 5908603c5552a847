"""The suite's own container: what it says it got is what it was sent, byte for byte."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from .client import Received, wait_until
from .conftest import CONTAINER, free_port
from .test_received import CAPTURED, REPLAYED


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Of a container with nothing in front."""
    number = free_port()
    command = [sys.executable, str(CONTAINER), "--host", "127.0.0.1", "--port", str(number)]
    process = subprocess.Popen(command)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", number)) == 0

    try:
        wait_until(listens)
        yield number
    finally:
        process.terminate()
        process.wait()


def send(port: int, raw: bytes) -> http.client.HTTPResponse:
    """These bytes, on a connection of their own."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(raw)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response


@pytest.mark.parametrize("name", REPLAYED)
def test_tells_what_it_got(name: str, port: int) -> None:
    """Every captured request, chunks and all, comes back as it was sent."""
    raw = CAPTURED[name].read_bytes()

    told = json.loads(send(port, raw).read())

    assert base64.b64decode(told["raw"]) == raw
    assert told["length"] == len(Received.parse(raw).body)


def test_answers_these_bytes(port: int) -> None:
    """What a script says is all that is answered; then the connection ends."""
    answer = b"HTTP/1.1 299 Odd\r\nX-Odd: 1\r\n\r\nodd"
    step = {"raw": base64.b64encode(answer).decode(), "then": "close"}
    script = json.dumps({"steps": [step]})

    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST / HTTP/1.1\r\nX-Script: {script}\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            assert stream.read() == answer
