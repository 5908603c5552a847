"""The AsyncAPI on one machine: how fast it takes, delivers and answers requests, and what it costs.

    python -m bench.queue --output docs/performance            # everything but the real model
    python -m bench.queue --texts sst2/dev.tsv                 # what the path costs the real model

Load generator (:mod:`bench.client`), runtime and container share the machine. A request counts when
its POST was answered, that is, when it is on the disk; it is completed when a client can read it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.client import Connection, connections
from project.sentiment.data import read_examples

ROOT = Path(__file__).parent.parent
STUB = f"{sys.executable} -m bench.stub $(CORTEX_PORT)"
BODY = b'{"input_text": "a movie that is as lovely as the first one"}'
PATH = "/sentiment"
CALLERS = 32
POLL_SECONDS = 0.005
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

Row = tuple[str, str]
Figures = dict[str, float]


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

    def megabytes(self, field: str) -> float:
        """Its memory: VmRSS now, VmHWM at the most."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(status.partition(f"{field}:")[2].split()[0]) / 1024


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
        await until(lambda: answers(runtime_port, f"{PATH}/healthz"))
        yield Runtime(runtime_port, metrics_port, container_port, process.pid)
    finally:
        process.terminate()
        await process.wait()


async def until(check: Callable[[], Coroutine[Any, Any, bool]], period: float = 0.02) -> None:
    """Look until it is so."""
    while not await check():
        await asyncio.sleep(period)


async def answers(port: int, path: str) -> bool:
    """Whether a GET is answered with 200."""
    try:
        async with connections(port, 1) as (connection,):
            return (await connection.get(path))[0] == 200
    except ConnectionError:
        return False


async def call(
    port: int,
    count: int,
    callers: int,
    work: Callable[[Connection, int], Coroutine[Any, Any, None]],
) -> tuple[float, list[float]]:
    """``work`` for each number below ``count``; returns the seconds of all, and of each."""
    numbers = iter(range(count))
    seconds: list[float] = []

    async def caller(connection: Connection) -> None:
        for number in numbers:
            started = time.perf_counter()
            await work(connection, number)
            seconds.append(time.perf_counter() - started)

    async with connections(port, callers) as opened:
        started = time.perf_counter()
        await asyncio.gather(*map(caller, opened))
        return time.perf_counter() - started, seconds


async def submit(connection: Connection, body: bytes = BODY) -> str:
    """POST it; returns the id."""
    status, answer = await connection.post(PATH, body)
    if status != 200:
        raise RuntimeError(f"{status}: {answer!r}")
    request_id: str = json.loads(answer)["id"]
    return request_id


async def completed(connection: Connection, request_id: str) -> bool:
    """Whether a poll shows the result."""
    status, answer = await connection.get(f"{PATH}/{request_id}")
    state = json.loads(answer)["status"] if status == 200 else answer
    if state not in {"in_queue", "in_progress", "completed"}:
        raise RuntimeError(f"{request_id}: {state}")
    return bool(state == "completed")


async def submit_many(
    port: int, count: int, callers: int = CALLERS, bodies: Sequence[bytes] = (BODY,)
) -> tuple[list[str], float, list[float]]:
    """Returns the ids, the seconds of all, and of each."""
    ids: list[str] = []

    async def work(connection: Connection, number: int) -> None:
        ids.append(await submit(connection, bodies[number % len(bodies)]))

    return ids, *await call(port, count, callers, work)


async def all_completed(port: int, ids: Sequence[str]) -> None:
    """Wait until every request shows its result; the youngest first, for they end last."""
    async with connections(port, 1) as (connection,):
        for request_id in reversed(ids):
            while not await completed(connection, request_id):
                await asyncio.sleep(0.05)  # rarely: it is not the polls that are measured


def milliseconds(seconds: Sequence[float], percent: int) -> float:
    """A percentile."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


async def generator(folder: Path) -> Figures:
    """What the load generator itself can do: the same requests to a server that does nothing."""
    port = free_port()
    stub = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.stub", str(port))
    try:
        await until(lambda: answers(port, "/"))

        async def work(connection: Connection, _: int) -> None:
            await connection.get("/")

        seconds, _each = await call(port, 20_000, CALLERS, work)
        _, alone = await call(port, 1000, 1, work)
    finally:
        stub.kill()
        await stub.wait()
    return {"rate": 20_000 / seconds, "p50_ms": milliseconds(alone, 50)}


async def submitted_alone(folder: Path) -> Figures:
    """No container runs: requests are stored and wait."""
    count = 20_000
    async with running(folder, "--container-url", f"http://127.0.0.1:{free_port()}") as runtime:
        await submit_many(runtime.port, 500)
        before = runtime.cpu_seconds()
        _, seconds, each = await submit_many(runtime.port, count)
        used = runtime.cpu_seconds() - before
    return {
        "rate": count / seconds,
        "p50_ms": milliseconds(each, 50),
        "p99_ms": milliseconds(each, 99),
        "cpu_us": used / count * 1e6,
    }


async def submitted_and_completed(
    folder: Path, concurrency: int = 16, count: int = 10_000
) -> Figures:
    """Callers that submit and go; the time until the last one shows its result."""
    async with running(folder, "--command", STUB, concurrency=concurrency) as runtime:
        await all_completed(runtime.port, (await submit_many(runtime.port, 500))[0])
        before, started = runtime.cpu_seconds(), time.perf_counter()
        ids, submitting, _ = await submit_many(runtime.port, count)
        await until(lambda: drained(runtime))
        seconds = time.perf_counter() - started
        used = runtime.cpu_seconds() - before
        await all_completed(runtime.port, ids)
    return {
        "rate": count / seconds,
        "submit_rate": count / submitting,
        "cpu_us": used / count * 1e6,
    }


async def drained(runtime: Runtime) -> bool:
    """Whether nothing waits and nothing runs."""
    return await depth(runtime) == 0


async def depth(runtime: Runtime) -> float:
    """Requests that wait or run, by the metrics."""
    async with connections(runtime.metrics_port, 1) as (connection,):
        _, text = await connection.get("/metrics")
    (line,) = (each for each in text.splitlines() if each.startswith(b"cortex_async_active{"))
    return float(line.rpartition(b" ")[2])


async def polled(folder: Path, callers: int, count: int, pause: float = 0.0) -> Figures:
    """Callers that submit and poll until they have the result."""

    async def work(connection: Connection, _: int) -> None:
        request_id = await submit(connection)
        while not await completed(connection, request_id):
            await asyncio.sleep(POLL_SECONDS)

    async def paced(connection: Connection, number: int) -> None:
        started = time.perf_counter()
        await work(connection, number)
        latencies.append(time.perf_counter() - started)
        await asyncio.sleep(pause)

    latencies: list[float] = []
    async with running(folder, "--command", STUB) as runtime:
        await until(lambda: ready(runtime))
        await call(runtime.port, 50, callers, work)
        seconds, _ = await call(runtime.port, count, callers, paced)
    return {
        "rate": count / seconds,
        "p50_ms": milliseconds(latencies, 50),
        "p99_ms": milliseconds(latencies, 99),
    }


async def ready(runtime: Runtime) -> bool:
    """Whether a request gets through."""
    async with connections(runtime.port, 1) as (connection,):
        await all_completed(runtime.port, [await submit(connection)])
    return True


async def one_at_a_time(folder: Path) -> Figures:
    """As above, with the ``max_concurrency`` that Cortex has by default."""
    return await submitted_and_completed(folder, concurrency=1, count=3000)


async def backlog(folder: Path) -> Figures:
    """100,000 requests that wait: memory, and the rate of submission before and after."""
    figures: Figures = {}
    async with running(folder, "--container-url", f"http://127.0.0.1:{free_port()}") as runtime:
        figures["megabytes_empty"] = runtime.megabytes("VmRSS")
        await submit_many(runtime.port, 100)
        for queued in (100, 100_000):
            missing = queued - await depth(runtime)
            await submit_many(runtime.port, int(missing))
            _, seconds, each = await submit_many(runtime.port, 5000)
            figures[f"rate_at_{queued}"] = 5000 / seconds
            figures[f"p99_ms_at_{queued}"] = milliseconds(each, 99)
        figures["megabytes"] = runtime.megabytes("VmRSS")
        figures["megabytes_most"] = runtime.megabytes("VmHWM")
    started = time.perf_counter()
    async with running(folder, "--command", STUB) as runtime:
        figures["seconds_to_start"] = time.perf_counter() - started
        before = await depth(runtime)
        started = time.perf_counter()
        await asyncio.sleep(20)
        figures["rate_of_completion"] = (before - await depth(runtime)) / (
            time.perf_counter() - started
        )
        figures["megabytes_most_after_restart"] = runtime.megabytes("VmHWM")
    return figures


async def model(folder: Path, texts: Sequence[str], concurrency: int = 8) -> Figures:
    """The service's own container: called directly, and through the queue, in turns."""
    bodies = [json.dumps({"input_text": text}).encode() for text in texts]
    count = len(bodies)
    direct: list[float] = []
    through: list[float] = []
    async with running(folder, concurrency=concurrency) as runtime:
        await until(lambda: answers(runtime.container_port, "/healthcheck"))

        async def work(connection: Connection, number: int) -> None:
            status, answer = await connection.post("/", bodies[number])
            if status != 200 or b"score" not in answer:
                raise RuntimeError(f"{status}: {answer!r}")

        await call(runtime.container_port, 200, concurrency, work)
        before = runtime.cpu_seconds()
        for _ in range(4):
            direct.append((await call(runtime.container_port, count, concurrency, work))[0])
            started = time.perf_counter()
            ids, _seconds, _each = await submit_many(runtime.port, count, concurrency, bodies)
            await all_completed(runtime.port, ids[-1:])
            await until(lambda: drained(runtime))
            through.append(time.perf_counter() - started)
            await all_completed(runtime.port, ids[:10])
        used = runtime.cpu_seconds() - before
    return {
        "direct": count / statistics.median(direct),
        "through": count / statistics.median(through),
        "cost": 1 - sum(direct) / sum(through),
        "cpu_us": used / count / len(through) * 1e6,
    }


SCENARIOS: dict[str, Callable[[Path], Coroutine[Any, Any, Figures]]] = {
    "generator": generator,
    "submitted alone": submitted_alone,
    "submitted and completed": submitted_and_completed,
    "one at a time": one_at_a_time,
    "backlog": backlog,
    "model": lambda folder: model(
        folder, [e.text for e in read_examples(Path("/work/shared/data/sst2/dev.tsv"))]
    ),
    "submitted and polled, 32 callers": lambda folder: polled(folder, CALLERS, 5000),
    "submitted and polled, one caller": lambda folder: polled(folder, 1, 500, 0.02),
}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", default=list(SCENARIOS))
    options = parser.parse_args()
    for name in options.scenarios:
        with tempfile.TemporaryDirectory(dir=".") as folder:
            figures = uvloop.run(SCENARIOS[name](Path(folder).absolute()))
        print(name, {key: round(value, 2) for key, value in figures.items()}, flush=True)


if __name__ == "__main__":
    main()
