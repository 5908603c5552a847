"""A client that costs a few microseconds, so that what is measured is the server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import cast

Answer = tuple[int, bytes]


class Connection(asyncio.Protocol):
    """HTTP/1.1 on a bare socket: one request at a time; answers must say their length."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._seen = b""
        self._answer: asyncio.Future[Answer] | None = None

    def data_received(self, data: bytes) -> None:
        """Look whether the answer is whole."""
        self._seen += data
        header, end, body = self._seen.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(header.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(body) >= length and self._answer is not None:
            self._seen = b""
            self._answer.set_result((int(header[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody shall wait for ever."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed before the answer"))

    async def post(self, path: str, body: bytes) -> Answer:
        """POST some JSON; returns status and body."""
        return await self._send(
            b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
        )

    async def get(self, path: str) -> Answer:
        """GET; returns status and body."""
        return await self._send(b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode())

    async def _send(self, request: bytes) -> Answer:
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """End it."""
        self._transport.close()


@contextlib.asynccontextmanager
async def connections(port: int, count: int) -> AsyncIterator[list[Connection]]:
    """Open ``count`` connections; closed at the end."""
    loop = asyncio.get_running_loop()
    opened = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(count)
    ]
    try:
        yield opened
    finally:
        for each in opened:
            each.close()
