"""Assembles one AsyncAPI on one machine, runs it until told to stop, and stops it in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from project.asyncapi.config import AsyncAPI, ConfigError
from project.asyncapi.dequeuer import Dequeuer
from project.asyncapi.endpoint import create_gateway
from project.asyncapi.handler import RequestHandler
from project.asyncapi.probes import Readiness
from project.asyncapi.queue import RequestQueue, Signal
from project.asyncapi.replica import GRACE_SECONDS, Replica, check_port
from project.asyncapi.service import Service
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.storage import StorageError

logger = logging.getLogger(__name__)

GATEWAY_GRACE_SECONDS = 5
"""For submissions that are still being uploaded at the stop: they were not acknowledged."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to run an API here.

    Attributes:
        port: of the gateway; 0 takes a free one.
        storage: the SQLite file.
        container_url: of a container that runs already; None starts ``command``.
    """

    host: str
    port: int
    storage: Path
    command: Sequence[str]
    container_url: str | None = None


class Gateway(uvicorn.Server):
    """uvicorn without its signal handlers: the runtime decides when the gateway stops.

    Args:
        changed: sent when the gateway has started.
    """

    def __init__(self, config: uvicorn.Config, changed: Signal) -> None:
        super().__init__(config)
        self._changed = changed

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self._changed.send()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


class Runtime:
    """Gateway, queue, dequeuer and container of one API.

    Raises:
        ConfigError: the API needs something that one machine does not have.
        PortInUse: the container's port is taken.
        StorageError: the storage cannot be used.
        OSError: the gateway's port is taken.
    """

    def __init__(self, api: AsyncAPI, options: Options) -> None:
        if api.readiness_probe.exec is not None:
            raise ConfigError("readiness_probe.exec: only http_get and tcp_socket work here")
        host, port = "127.0.0.1", api.pod.port
        if options.container_url is not None:
            host, port = _address(options.container_url)
        self._replica = None
        if options.container_url is None:
            check_port(api.pod.port)
            self._replica = Replica(options.command, api.env)
        self._changed = Signal()
        self._socket = _listen(options.host, options.port)
        try:
            self._queue = RequestQueue(SQLiteStorage(options.storage), self._changed)
        except StorageError:
            self._socket.close()
            raise
        self._handler = RequestHandler(f"http://{host}:{port}/", api.pod.max_concurrency)
        self._readiness = Readiness(
            api.readiness_probe, host=host, ports={api.pod.port: port}, changed=self._changed
        )
        self._dequeuer = Dequeuer(
            self._queue, self._handler, self._readiness, self._changed, api.pod.max_concurrency
        )
        gateway = create_gateway(Service(self._queue), api.endpoint)
        self._gateway = Gateway(
            uvicorn.Config(
                gateway,
                log_config=None,
                access_log=False,
                lifespan="off",
                timeout_graceful_shutdown=GATEWAY_GRACE_SECONDS,
            ),
            self._changed,
        )
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()

    @property
    def port(self) -> int:
        """The gateway's port."""
        port: int = self._socket.getsockname()[1]
        return port

    def stop(self) -> None:
        """Begin to stop; a second call does not wait for the requests in progress."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until :meth:`stop`, then drain: what is running ends, what waits stays queued."""
        serving = asyncio.create_task(self._gateway.serve(sockets=[self._socket]))
        dequeuing = asyncio.create_task(self._dequeuer.run())
        background: list[asyncio.Task[None]] = [asyncio.create_task(self._readiness.run())]
        if self._replica is not None:
            background.append(asyncio.create_task(self._replica.run()))
        announcing = asyncio.create_task(self._announce(on_ready))
        # Only `stop` ends by itself: any other that does has failed, and its error is raised below.
        await _first_of(self._stop.wait(), serving, dequeuing, *background)
        announcing.cancel()
        await self._drain(serving, dequeuing)
        await self._close(background)
        for task in (serving, dequeuing, *background):
            if not task.cancelled():
                task.result()

    async def _drain(self, serving: asyncio.Task[None], dequeuing: asyncio.Task[None]) -> None:
        logger.info("stopping: requests in progress are finished, queued ones wait on disk")
        self._gateway.should_exit = True
        self._dequeuer.stop()
        await _first_of(
            asyncio.wait({serving, dequeuing}), self._hurry.wait(), asyncio.sleep(GRACE_SECONDS)
        )
        if not dequeuing.done():
            logger.warning("requests still in progress are sent again after the next start")
            self._dequeuer.abandon()
        self._gateway.force_exit = True
        await asyncio.gather(serving, dequeuing, return_exceptions=True)

    async def _close(self, background: list[asyncio.Task[None]]) -> None:
        background[0].cancel()
        if self._replica is not None:
            stopping = asyncio.create_task(self._replica.stop())
            await _first_of(stopping, self._hurry.wait())
            if not stopping.done():
                self._replica.kill()
        await asyncio.gather(*background, return_exceptions=True)
        await self._handler.close()
        self._queue.close()

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        changed = self._changed.listen()
        while not (self._readiness.ready and self._gateway.started):
            await changed.wait()
            changed = self._changed.listen()
        on_ready()


async def _first_of(*awaitables: Awaitable[object]) -> None:
    """Wait until one is done; those made here for the wait are cancelled, given tasks are not."""
    given = {each for each in awaitables if isinstance(each, asyncio.Task)}
    made = {asyncio.ensure_future(each) for each in awaitables if each not in given}
    await asyncio.wait(given | made, return_when=asyncio.FIRST_COMPLETED)
    for task in made:
        task.cancel()


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname or parts.path.strip("/") or parts.query:
        raise ConfigError(f"--container-url {url}: must be http://host:port")
    return parts.hostname, parts.port or 80


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"port {port} cannot be used: {error.strerror}") from error
    return listener
