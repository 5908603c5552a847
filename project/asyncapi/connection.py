"""One client's connection: bounded while the head of a request is on its way.

uvicorn and its parser keep whatever a client sends as a head, for as long as it likes.
"""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

HEAD_SECONDS = 30.0
"""From the first byte of a head, or from the connection on, to its end."""

MAX_HEAD_BYTES = 128 * 1024
"""In a row that are no body; twice what the ingress lets pass, which answers whole heads."""

RESERVED_DESCRIPTORS = 256
"""Not for clients: the storages, and the connections to the containers."""

TOO_LARGE = b"Request Header Fields Too Large"


class Connection(HttpToolsProtocol):
    """uvicorn's, with an end to heads that have none and to clients that say nothing."""

    _head_bytes = 0
    _in_body = False
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the client, if there is a descriptor to spare, and begin to wait for its head."""
        super().connection_made(transport)
        if len(self.connections) > _max_connections():
            transport.close()
        else:
            self._wait_for_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._head_ended()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, and see whether that is enough of a head."""
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse()
        elif self._head_bytes and not self._in_body and self._deadline is None:
            self._wait_for_head()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field; those after a body are dropped, as Envoy does."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The body follows."""
        self._in_body = True
        self._head_ended()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """It goes on: what was read to get here is no head."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Another head may follow."""
        self._in_body = False
        self._head_bytes = 0
        super().on_message_complete()

    def _wait_for_head(self) -> None:
        self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _head_ended(self) -> None:
        self._head_bytes = 0
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _refuse(self) -> None:
        """Say so as Envoy does, unless an answer is under way."""
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or cycle.response_complete:
            fields: list[Any] = [
                *self.server_state.default_headers,
                (b"content-length", b"%d" % len(TOO_LARGE)),
                (b"content-type", b"text/plain"),
                (b"connection", b"close"),
            ]
            head = b"".join(b"%b: %b\r\n" % field for field in fields)
            self.transport.write(b"HTTP/1.1 431 %b\r\n%b\r\n%b" % (TOO_LARGE, head, TOO_LARGE))
        self.transport.close()


def _max_connections() -> int:
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, descriptors - RESERVED_DESCRIPTORS)
