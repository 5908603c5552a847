"""A container that answers at once: what is measured with it is the path, not the model.

python -m bench.stub 8080
"""

from __future__ import annotations

import asyncio
import socket
import sys

import uvloop

RESULT = b'{"predictions":[{"label":"POSITIVE","score":0.978,"tokens":5}]}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(RESULT),
    RESULT,
)


class Stub(asyncio.Protocol):
    """Reads what the dequeuer and the probes send: chunks, or no body."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport
        self._seen = b""

    def data_received(self, data: bytes) -> None:
        """Answer each request at its end."""
        self._seen += data
        header, end, body = self._seen.partition(b"\r\n\r\n")
        if end and (body.endswith(b"0\r\n\r\n") or b"\r\nTransfer-Encoding: " not in header):
            self._seen = b""
            self._transport.write(ANSWER)  # type: ignore[attr-defined]


async def serve(listener: socket.socket) -> None:
    """Until cancelled."""
    server = await asyncio.get_running_loop().create_server(Stub, sock=listener)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128)))
