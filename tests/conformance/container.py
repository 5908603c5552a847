"""The container of the conformance suite: does what a request tells it to, and says what it got.

``python container.py`` listens on ``--port`` (``$CORTEX_PORT``, 8080); standard library only. The
only way from here to a test is a result through the API under test: without a script the answer is
the request as it arrived (:meth:`Receipt.told`). A request's header ``X-Script`` holds JSON:

``token``
    its receipts are kept under this name, for a later request to read (``tell``);
``steps``
    the first is for the first receipt of the token, the second for the second, the last for all
    that follow.

A step, in the order in which it is done:

``barrier``
    waits until so many requests are in flight, for at most ``PATIENCE_SECONDS``;
``delay``
    waits, in seconds;
``exit``
    ends this process;
``health``
    ``[status, seconds]``: answers readiness probes so, and waits until one has been answered so;
``refuse``
    seconds without a listener, in which every connection is closed after its answer;
``hold``
    waits, in seconds;
``raw``
    base64 of all that is answered; or ``pad``: an object of so many bytes; or ``tell``: the
    receipts of a token and the last probes; or else the receipt of this request;
``then``
    ``close`` or ``reset`` ends the connection; else it is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import itertools
import json
import os
import signal
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOLD_BYTES = 256 * 1024
"""Of a request, in its own answer: more than all the headers an ingress lets through."""

KEPT_BYTES = 4096
"""Of a request, in the receipts of its token."""

PATIENCE_SECONDS = 30.0
"""For what a step waits for."""

BARRIER_STAYS_SECONDS = 0.1
"""So that all who wait see it, before the first to answer is no longer in flight."""

PROBE_SETTLES_SECONDS = 0.5
"""From the answer to a probe until who sent it has surely acted on it."""

Step = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Receipt:
    """A request, byte for byte.

    Attributes:
        raw: the head, and the body with its framing.
        body: without framing.
        chunks: how many chunks the body came in; None: it was not chunked.
        connection: a number; ``nth``: the request's place on it, from 1.
        in_flight: requests being answered, this one included.
        at: seconds of this process's clock.
    """

    raw: bytes
    body: bytes
    chunks: int | None
    connection: int
    nth: int
    in_flight: int
    at: float

    @property
    def head(self) -> bytes:
        """Request line and headers."""
        return self.raw[: self.raw.index(b"\r\n\r\n") + 4]

    @property
    def target(self) -> str:
        """Of the request line."""
        return self.head.split(b" ", 2)[1].decode("latin-1")

    def header(self, name: bytes) -> bytes:
        """The first value of a header, or nothing."""
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name:
                return value.strip()
        return b""

    def told(self, limit: int) -> dict[str, Any]:
        """As JSON: of the raw bytes the first ``limit``, in base64."""
        return {
            "raw": base64.b64encode(self.raw[:limit]).decode(),
            "length": len(self.body),
            "sha256": hashlib.sha256(self.body).hexdigest(),
            "chunks": self.chunks,
            "connection": self.connection,
            "nth": self.nth,
            "in_flight": self.in_flight,
            "at": round(self.at, 3),
        }


class Container:
    """The server, and what it remembers."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._server: asyncio.Server | None = None
        self._numbers = itertools.count(1)
        self._idle: set[asyncio.StreamWriter] = set()
        self._refusing = False
        self._in_flight = 0
        self._receipts: dict[str, list[Receipt]] = {}
        self._scripts: dict[str, Mapping[str, Any]] = {}
        self._probes: deque[dict[str, Any]] = deque(maxlen=200)
        self._health, self._health_until = 200, 0.0
        self._back: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT."""
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, os._exit, 0)
        await self._listen()
        await asyncio.Event().wait()

    async def _listen(self) -> None:
        self._refusing = False
        self._server = await asyncio.start_server(
            self._connection, self._host, self._port, limit=1 << 20
        )

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(self._numbers)
        with contextlib.suppress(OSError):
            for nth in itertools.count(1):
                self._idle.add(writer)
                parts = await _read(reader)
                self._idle.discard(writer)
                if parts is None:
                    if nth == 1:
                        self._probed(b"", 0)
                    break
                receipt = Receipt(*parts, number, nth, self._in_flight + 1, time.monotonic())
                if not await self._answer(receipt, writer):
                    break
        self._idle.discard(writer)
        writer.close()

    async def _answer(self, receipt: Receipt, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False if its connection is to be closed."""
        if receipt.raw.startswith(b"GET /healthcheck"):
            status = self._health if time.monotonic() < self._health_until else 200
            writer.write(_http(b"{}", status))
            await writer.drain()
            self._probed(receipt.head, status)
            return not self._refusing
        self._in_flight += 1
        try:
            return await self._follow(self._step(receipt), receipt, writer)
        finally:
            self._in_flight -= 1

    def _step(self, receipt: Receipt) -> Step:
        """What the script says of this receipt.

        A redirect is followed without the body, perhaps without the header: its target may name
        the token in its query instead.
        """
        script: Mapping[str, Any] = json.loads(receipt.header(b"x-script") or b"{}")
        named = parse_qs(urlsplit(receipt.target).query).get("token", [""])[0]
        token = script.get("token", named)
        if not token:
            return _step_of(script, 1)
        script = self._scripts.setdefault(token, script)
        receipts = self._receipts.setdefault(token, [])
        receipts.append(receipt)
        return _step_of(script, len(receipts))

    async def _follow(self, step: Step, receipt: Receipt, writer: asyncio.StreamWriter) -> bool:
        await self._wait(step)
        answer = self._bytes(step, receipt)
        writer.write(answer)
        await writer.drain()
        then = step.get("then")
        if then == "reset":
            linger = struct.pack("ii", 1, 0)  # close(2) then sends RST
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        return then is None and not self._refusing

    async def _wait(self, step: Step) -> None:
        if "barrier" in step:
            wanted = step["barrier"]
            await _until(lambda: self._in_flight >= wanted)
            await asyncio.sleep(BARRIER_STAYS_SECONDS)
        await asyncio.sleep(step.get("delay", 0))
        if "exit" in step:
            os._exit(1)
        if "health" in step:
            await self._be(*step["health"])
        if "refuse" in step:
            self._refuse(step["refuse"])
        await asyncio.sleep(step.get("hold", 0))

    async def _be(self, status: int, seconds: float) -> None:
        began = time.monotonic()
        self._health, self._health_until = status, began + seconds
        await _until(
            lambda: any(each["status"] == status and each["at"] > began for each in self._probes)
        )
        await asyncio.sleep(PROBE_SETTLES_SECONDS)

    def _refuse(self, seconds: float) -> None:
        assert self._server is not None
        self._refusing = True
        self._server.close()
        for writer in self._idle:
            writer.close()

        async def back() -> None:
            await asyncio.sleep(seconds)
            await self._listen()

        self._back = asyncio.create_task(back())

    def _probed(self, head: bytes, status: int) -> None:
        now = round(time.monotonic(), 3)
        self._probes.append({"head": head.decode("latin-1"), "status": status, "at": now})

    def _bytes(self, step: Step, receipt: Receipt) -> bytes:
        if "raw" in step:
            return base64.b64decode(step["raw"])
        if "pad" in step:
            return _http(b'{"pad":"' + b"x" * (step["pad"] - 10) + b'"}')
        value = receipt.told(TOLD_BYTES)
        if "tell" in step:
            kept = self._receipts.get(step["tell"], [])
            value = {
                "receipts": [each.told(KEPT_BYTES) for each in kept],
                "probes": list(self._probes),
                "at": round(time.monotonic(), 3),
            }
        return _http(json.dumps(value).encode())


async def _until(check: Callable[[], bool]) -> None:
    """Wait for ``check``, or for ``PATIENCE_SECONDS``."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not check():  # noqa: ASYNC110  (a script waits for anything)
                await asyncio.sleep(0.01)


def _step_of(script: Mapping[str, Any], receipt: int) -> Step:
    steps: list[Step] = script.get("steps", [{}])
    return steps[min(receipt, len(steps)) - 1]


def _http(body: bytes, status: int = 200) -> bytes:
    head = f"HTTP/1.1 {status} -\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, bytes, int | None] | None:
    """The next request of a connection: raw bytes, body and number of chunks; None at its end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = head.lower()
        if b"\r\ntransfer-encoding: chunked\r\n" in fields:
            raw, chunks = await _read_chunks(reader)
            return head + raw, b"".join(chunks), len(chunks)
        length = 0
        if b"\r\ncontent-length:" in fields:
            length = int(fields.split(b"\r\ncontent-length:")[1].split(b"\r\n")[0])
        body = await reader.readexactly(length)
    except (asyncio.IncompleteReadError, OSError):
        return None
    return head + body, body, None


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, list[bytes]]:
    raw: list[bytes] = []
    chunks: list[bytes] = []
    while True:
        line = await reader.readuntil(b"\r\n")
        data = await reader.readexactly(int(line.split(b";")[0], 16) + 2)
        raw += [line, data]
        if data == b"\r\n":
            return b"".join(raw), chunks
        chunks.append(data[:-2])


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="The container of the conformance suite.")
    parser.add_argument("--host", default="0.0.0.0", help="%(default)s")  # noqa: S104
    parser.add_argument("--port", type=int, default=int(os.environ.get("CORTEX_PORT", "8080")))
    options = parser.parse_args()

    async def run() -> None:
        await Container(options.host, options.port).run()

    asyncio.run(run())


if __name__ == "__main__":
    main()
