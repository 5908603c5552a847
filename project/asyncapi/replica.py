"""A replica: one container, the dequeuer beside it, and the probes that watch over it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from project.asyncapi.checks import Target
from project.asyncapi.config import ConfigError
from project.asyncapi.container_spec import Probe
from project.asyncapi.dequeuer import Dequeuer, Policy
from project.asyncapi.handler import Observe, RequestHandler
from project.asyncapi.probes import Readiness, watch_liveness
from project.asyncapi.process import GRACE_SECONDS, ContainerProcess
from project.asyncapi.queue import RequestQueue
from project.asyncapi.spec import AsyncAPI
from project.asyncapi.waiting import Signal, first_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a replica's container runs.

    Attributes:
        command: starts it; None if it runs already.
        port: where it listens.
        env: of its processes, beside that of its API.
    """

    command: Sequence[str] | None
    host: str
    port: int
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def at(cls, url: str) -> Placement:
        """Of a container that runs already.

        Raises:
            ConfigError: ``url`` is not ``http://host:port``.
        """
        with contextlib.suppress(ValueError):  # a port that is none, or half an IPv6 address
            parts = urlsplit(url)
            rest = parts.path.strip("/") or parts.query or parts.fragment or parts.username
            if parts.scheme == "http" and parts.hostname and parts.port != 0 and not rest:
                return cls(None, parts.hostname, parts.port or 80)
        raise ConfigError(f"--container-url {url}: must be http://host:port, the port 1 to 65535")


class Replica:
    """Takes requests from the queue, and has its container compute them.

    Args:
        changed: sent when anything has changed.
        observe: see :class:`~project.asyncapi.handler.RequestHandler`.
    """

    def __init__(
        self,
        config: AsyncAPI,
        placement: Placement,
        queue: RequestQueue,
        changed: Signal,
        policy: Policy,
        max_result_bytes: int,
        observe: Observe,
    ) -> None:
        self._name = config.name
        container = config.pod.containers[0]
        env = {**config.env, "CORTEX_PORT": str(placement.port)}
        self._target = Target(placement.host, {config.pod.port: placement.port}, env)
        self._liveness = container.liveness_probe
        url = f"http://{placement.host}:{placement.port}/"
        self._handler = RequestHandler(url, config.pod.port, max_result_bytes, observe)
        self._readiness = Readiness(config.readiness_probes, self._target, changed)
        self._dequeuer = Dequeuer(queue, self._handler, self._readiness, changed, policy)
        self._process: ContainerProcess | None = None
        if placement.command is not None:
            self._process = ContainerProcess(
                placement.command, {**env, **placement.env}, container.pre_stop, self._target
            )
        self._hurry = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []
        self._dequeuing: asyncio.Task[None] | None = None

    @property
    def ready(self) -> bool:
        """Whether the container passes its probes."""
        return self._readiness.ready

    def start(self) -> list[asyncio.Task[None]]:
        """Begin; none of the tasks ends by itself unless it has failed."""
        self._dequeuing = asyncio.create_task(self._dequeuer.run())
        self._background = [asyncio.create_task(self._readiness.run())]
        if self._process is not None:
            self._background.append(asyncio.create_task(self._process.run()))
            if self._liveness is not None:
                watching = self._watch(self._process, self._liveness)
                self._background.append(asyncio.create_task(watching))
        return [self._dequeuing, *self._background]

    def hurry(self) -> None:
        """Do not wait for the requests in progress, nor for the container, any longer."""
        self._hurry.set()

    async def drain(self) -> None:
        """Pull no more, and wait for what is running; what waits stays queued."""
        if self._dequeuing is None:
            return
        self._dequeuer.stop()
        grace = asyncio.sleep(GRACE_SECONDS)
        await first_of(asyncio.wait({self._dequeuing}), self._hurry.wait(), grace)
        if not self._dequeuing.done():
            logger.warning(
                "requests still in progress are sent again after the next start",
                extra={"api": self._name},
            )
            self._dequeuer.abandon()
            await asyncio.wait({self._dequeuing})

    async def close(self) -> None:
        """Stop the container, and everything else that is here."""
        if self._process is not None:
            stopping = asyncio.create_task(self._process.stop())
            await first_of(stopping, self._hurry.wait())
            if not stopping.done():
                self._process.kill()
            await stopping
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._handler.close()

    async def _watch(self, process: ContainerProcess, probe: Probe) -> None:
        await watch_liveness(probe, self._target, lambda: process.generation, process.restart)
