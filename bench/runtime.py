"""The AsyncAPI as a process, for measurements: where it is, and what it uses."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.connection import connections
from bench.load import peak_mb

ROOT = Path(__file__).parent.parent
STUB = f"{sys.executable} -m bench.stub $(CORTEX_PORT)"
PATH = "/sentiment"
CONFIG = """
- name: sentiment
  kind: AsyncAPI
  pod:
    port: {port}
    max_concurrency: {concurrency}
    containers:
      - name: api
        image: sentiment
        readiness_probe:
          http_get: {{port: {port}, path: /healthcheck}}
"""


@dataclass(frozen=True, slots=True)
class Runtime:
    """One that runs: where it is, and what it uses."""

    port: int
    metrics_port: int
    container_port: int
    pid: int

    def cpu_seconds(self) -> float:
        """Of the runtime's own process."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> float:
        """Its resident memory, at the most so far."""
        return peak_mb(self.pid)

    async def depth(self) -> int:
        """Requests that wait or run, by the metrics."""
        async with connections(self.metrics_port, 1) as (connection,):
            _, text = await connection.get("/metrics")
        (line,) = (each for each in text.splitlines() if each.startswith(b"cortex_async_active{"))
        return int(float(line.rpartition(b" ")[2]))

    async def drained(self) -> bool:
        """Whether nothing waits and nothing runs."""
        return await self.depth() == 0


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def running(folder: Path, *arguments: str, concurrency: int = 16) -> AsyncIterator[Runtime]:
    """The runtime over the queue in ``folder``, once its gateway answers; drained at the end."""
    runtime_port, metrics_port, container_port = free_port(), free_port(), free_port()
    config = folder / "cortex.yaml"
    config.write_text(CONFIG.format(port=container_port, concurrency=concurrency))
    with (folder / "log.txt").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "project.asyncapi", "--config", str(config),
            "--storage", str(folder), "--port", str(runtime_port),
            "--metrics-port", str(metrics_port), *arguments,
            cwd=ROOT, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        while not await answers(runtime_port, f"{PATH}/healthz"):
            if process.returncode is not None:
                raise RuntimeError(f"it ends at once: {(folder / 'log.txt').read_text()}")
            await asyncio.sleep(0.02)
        yield Runtime(runtime_port, metrics_port, container_port, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def until(check: Callable[[], Coroutine[Any, Any, bool]], period: float = 0.05) -> None:
    """Look until it is so; rarely, for the looks cost time that is measured."""
    while not await check():  # noqa: ASYNC110  (another process decides)
        await asyncio.sleep(period)


async def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        async with connections(port, 1) as (connection,):
            return (await connection.get(path))[0] == 200
    except ConnectionError:
        return False
