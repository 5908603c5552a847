"""uvicorn for an app that lives and stops with the runtime."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence

import uvicorn
from starlette.types import ASGIApp

from project.asyncapi.connection import Connection

GRACE_SECONDS = 5
"""For submissions that are still being uploaded at the stop: they were not acknowledged."""


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the runtime decides when it stops.

    Args:
        listener: a bound socket.
        headers: added to every answer.
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                headers=list(headers),
                proxy_headers=False,  # a client's X-Forwarded-For must not become its address
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )
        self._listener = listener

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit``."""
        await self.serve(sockets=[self._listener])

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def listen(host: str, port: int) -> socket.socket:
    """A bound socket; port 0 takes a free one.

    Raises:
        OSError: the message names the port.
    """
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"port {port} cannot be used: {error.strerror}") from error
    return listener
