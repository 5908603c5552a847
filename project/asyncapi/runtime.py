"""Runs the AsyncAPIs of ``cortex.yaml`` behind one ingress, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from project.asyncapi.api import Limits, LocalAPI
from project.asyncapi.dequeuer import Policy
from project.asyncapi.ingress import SERVER, Ingress
from project.asyncapi.leftovers import end_leftovers, mark
from project.asyncapi.metrics import Metrics
from project.asyncapi.process import check_port
from project.asyncapi.replica import Placement
from project.asyncapi.server import Server, listen
from project.asyncapi.spec import AsyncAPI
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.waiting import Signal, first_of

logger = logging.getLogger(__name__)

LOCALHOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Options:
    """How to run APIs here.

    Attributes:
        port, metrics_port: of the ingress and of the metrics; 0 takes a free one.
        storage: the folder of the SQLite files.
        commands: start containers, by API name; "" is for every other API.
        container_urls: of containers that run already, by API name; none is started then.
        faithful: see :class:`~project.asyncapi.dequeuer.Policy`.
    """

    host: str
    port: int
    metrics_port: int
    storage: Path
    commands: Mapping[str, Sequence[str]]
    container_urls: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    max_receives: int = 3
    faithful: bool = False


class Runtime:
    """All APIs, the ingress in front of them, and their metrics.

    Raises:
        ConfigError: an API needs something that one machine does not have.
        PortInUse: a container's port is taken.
        StorageError: a storage cannot be used.
        OSError: a port of the runtime's own is taken.
    """

    def __init__(self, apis: Sequence[AsyncAPI], options: Options) -> None:
        self._changed = Signal()
        self._stop = asyncio.Event()
        metrics = Metrics()
        self.placements = _placements(apis, options)
        with contextlib.ExitStack() as undo:
            gateway_socket = listen(options.host, options.port)
            undo.callback(gateway_socket.close)
            metrics_socket = listen(options.host, options.metrics_port)
            undo.callback(metrics_socket.close)
            storages = [_storage(api, options, undo) for api in apis]
            for placed in self.placements.values():
                if placed.command is not None:
                    check_port(placed.port)
            self._apis = [
                LocalAPI(
                    api,
                    self.placements[api.name],
                    storage,
                    options.limits,
                    Policy(api.pod.max_concurrency, options.max_receives, options.faithful),
                    metrics,
                    self._changed,
                )
                for api, storage in zip(apis, storages, strict=True)
            ]
            undo.pop_all()
        gateways = {
            api.endpoint: local.gateway for api, local in zip(apis, self._apis, strict=True)
        }
        self._ingress = Server(Ingress(gateways), gateway_socket, [("server", SERVER)])
        self._metrics = Server(metrics, metrics_socket)

    @property
    def port(self) -> int:
        """The ingress's port."""
        return self._ingress.port

    @property
    def metrics_port(self) -> int:
        """Where ``/metrics`` is."""
        return self._metrics.port

    def stop(self) -> None:
        """Begin to stop; a second call does not wait for the requests in progress."""
        if self._stop.is_set():
            for api in self._apis:
                api.replica.hurry()
        self._stop.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Serve until :meth:`stop`, then drain: what is running ends, what waits stays queued."""
        serving = [
            asyncio.create_task(server.run_until_stopped())
            for server in (self._ingress, self._metrics)
        ]
        tasks = serving + [task for api in self._apis for task in api.start()]
        announcing = asyncio.create_task(self._announce(on_ready))
        # Only `stop` ends by itself: any other that does has failed, and its error is raised below.
        await first_of(self._stop.wait(), *tasks)
        announcing.cancel()
        logger.info("stopping: requests in progress are finished, queued ones wait on disk")
        self._ingress.should_exit = True
        await asyncio.gather(*(api.replica.drain() for api in self._apis))
        self._ingress.force_exit = self._metrics.force_exit = self._metrics.should_exit = True
        await asyncio.gather(*serving, return_exceptions=True)
        await asyncio.gather(*(api.close() for api in self._apis))
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _announce(self, on_ready: Callable[[], None]) -> None:
        while not (self._ingress.started and all(api.replica.ready for api in self._apis)):
            changed = self._changed.listen()
            with contextlib.suppress(TimeoutError):  # uvicorn does not say when it has started
                await asyncio.wait_for(changed.wait(), 0.05)
        on_ready()


def _placements(apis: Sequence[AsyncAPI], options: Options) -> dict[str, Placement]:
    """Where the container of each API runs: on the pod's port, or a free one if two share it."""
    placements: dict[str, Placement] = {}
    for api in apis:
        url = options.container_urls.get(api.name, options.container_urls.get(""))
        if url is not None:
            placements[api.name] = Placement.at(url)
            continue
        port = api.pod.port
        if port in {placed.port for placed in placements.values()}:
            port = _free_port()
        command = options.commands.get(api.name, options.commands[""])
        placements[api.name] = Placement(command, LOCALHOST, port, mark(_path(api, options)))
    return placements


def _path(api: AsyncAPI, options: Options) -> Path:
    return options.storage / f"{api.name}.sqlite3"


def _storage(api: AsyncAPI, options: Options, undo: contextlib.ExitStack) -> SQLiteStorage:
    """The storage of an API, and nothing of an earlier run that still works for it."""
    path = _path(api, options)
    storage = SQLiteStorage(path, options.limits.min_free_bytes)
    undo.callback(storage.close)
    end_leftovers(path)  # once the file is ours
    return storage


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOCALHOST, 0))
        port: int = probe.getsockname()[1]
        return port
