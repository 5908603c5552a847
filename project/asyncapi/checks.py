"""One look at a container, as Kubernetes takes it: by HTTP, by a connection, by a command."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from project.asyncapi.container_spec import Exec, Hook, HttpGet, Probe, TcpSocket


@dataclass(frozen=True, slots=True)
class Target:
    """Where the container is.

    Attributes:
        ports: where a port of the pod is found on ``host``, if not at the same number.
        env: of commands that look at the container from inside.
    """

    host: str
    ports: Mapping[int, int]
    env: Mapping[str, str]

    async def passes(self, check: Probe | Hook, timeout_seconds: float) -> bool:
        """Whether the container passes."""
        try:
            async with asyncio.timeout(timeout_seconds):
                if check.http_get is not None:
                    return await self._get(check.http_get)
                if check.exec is not None:
                    return await self._exec(check.exec)
                if isinstance(check, Probe) and check.tcp_socket is not None:
                    return await self._connect(check.tcp_socket)
        except (OSError, aiohttp.ClientError):  # TimeoutError is an OSError
            pass
        return False

    async def _get(self, check: HttpGet) -> bool:
        url = f"http://{self.host}:{self._port(check.port)}/{check.path.lstrip('/')}"
        headers = {"Host": f"localhost:{check.port}", "User-Agent": "kube-probe/"}
        async with (
            aiohttp.ClientSession(skip_auto_headers=("Accept",)) as session,
            session.get(url, headers={**headers, "Accept-Encoding": "gzip"}) as response,
        ):
            return 200 <= response.status < 400

    async def _connect(self, check: TcpSocket) -> bool:
        _, writer = await asyncio.open_connection(self.host, self._port(check.port))
        writer.close()
        with contextlib.suppress(OSError):  # the peer may have reset it: it was there
            await writer.wait_closed()
        return True

    async def _exec(self, check: Exec) -> bool:
        process = await asyncio.create_subprocess_exec(
            *check.command, env={**os.environ, **self.env}, start_new_session=True
        )
        try:
            return await process.wait() == 0
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):  # it has ended just now
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()

    def _port(self, pod_port: int) -> int:
        return self.ports.get(pod_port, pod_port)
