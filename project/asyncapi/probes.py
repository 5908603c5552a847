"""The readiness probe: nothing is pulled from the queue while the container fails it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping

import httpx

from project.asyncapi.config import HttpGet, Probe
from project.asyncapi.queue import Signal

logger = logging.getLogger(__name__)

UNREADY_PERIOD = 0.25
"""Seconds between probes while the container is not ready: the kubelet, too, probes such a
container more often than ``period_seconds``, so that nobody waits for a period to end."""


class Readiness:
    """Whether the container passes its probe.

    Args:
        host: where the container runs.
        ports: where a port of the pod is found on ``host``, if not at the same number.
        changed: sent when the readiness changes.
    """

    def __init__(self, probe: Probe, host: str, ports: Mapping[int, int], changed: Signal) -> None:
        self._probe = probe
        self._host = host
        self._ports = ports
        self._changed = changed
        self._successes = self._failures = 0
        self._probe_now = asyncio.Event()
        self.ready = False

    def lost(self) -> None:
        """A connection to the container broke: not ready until the probe passes again."""
        self._set(False)
        self._probe_now.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        async with httpx.AsyncClient(
            timeout=self._probe.timeout_seconds, trust_env=False
        ) as client:
            await asyncio.sleep(self._probe.initial_delay_seconds)
            while True:
                self._count(await self._passes(client))
                period = self._probe.period_seconds
                self._probe_now.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._probe_now.wait(),
                        period if self.ready else min(period, UNREADY_PERIOD),
                    )

    def _count(self, passed: bool) -> None:
        self._successes = self._successes + 1 if passed else 0
        self._failures = 0 if passed else self._failures + 1
        if not self.ready and self._successes >= self._probe.success_threshold:
            self._set(True)
        elif self.ready and self._failures >= self._probe.failure_threshold:
            self._set(False)

    def _set(self, ready: bool) -> None:
        if ready == self.ready:
            return
        self.ready = ready
        self._successes = self._failures = 0
        logger.info("the container is %s", "ready" if ready else "not ready: nothing is pulled")
        self._changed.send()

    async def _passes(self, client: httpx.AsyncClient) -> bool:
        if self._probe.http_get is not None:
            return await self._get(client, self._probe.http_get)
        if self._probe.tcp_socket is not None:
            return await self._connect(self._port(self._probe.tcp_socket.port))
        return True  # exec probes are refused before the runtime starts

    def _port(self, pod_port: int) -> int:
        return self._ports.get(pod_port, pod_port)

    async def _get(self, client: httpx.AsyncClient, target: HttpGet) -> bool:
        path = "/" + target.path.lstrip("/")
        url = f"http://{self._host}:{self._port(target.port)}{path}"
        try:
            response = await client.get(url, headers={"User-Agent": "kube-probe/"})
        except httpx.HTTPError:
            return False
        return 200 <= response.status_code < 400

    async def _connect(self, port: int) -> bool:
        try:
            async with asyncio.timeout(self._probe.timeout_seconds):
                _, writer = await asyncio.open_connection(self._host, port)
        except OSError:  # TimeoutError is one
            return False
        writer.close()
        with contextlib.suppress(OSError):  # the peer may have reset it: it was there
            await writer.wait_closed()
        return True
