"""The AsyncAPI on one machine: how fast it takes, delivers and answers requests, and what it costs.

    python -m bench.queue sst2/dev.tsv --output docs/performance
    python -m bench.queue sst2/dev.tsv --only "submitted alone" "100,000 queued"

Load generator (:mod:`bench.connection`), runtime and container share the machine. A request is
submitted when its POST was answered, that is, when it is on the disk; it is completed when a client
can read its result. ``generator`` is the same load on a server that does nothing: its own limit.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import uvloop

from bench.connection import Connection, connections
from bench.runtime import PATH, STUB, Runtime, answers, free_port, running, until
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.types import Request
from project.sentiment.data import read_examples

BODY = b'{"input_text": "a movie that is as lovely as the first one"}'
CALLERS = 32
POLL_SECONDS = 0.005
TURNS, TURN_REQUESTS = 60, 300
"""Of each of the two queues whose rates are compared."""

MODEL_TURNS, MODEL_ROUNDS = 5, 3
"""Turns of each of the two ways to the model, and how often a turn has every text: its end is seen
up to 100 ms late, which is to be less than one part in a hundred."""

SILENT = ("--container-url", "http://127.0.0.1:1")
"""No container: nothing is pulled."""

Figures = dict[str, float]


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
    state = json.loads(answer)["status"] if status == 200 else f"{status}: {answer!r}"
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
            await until(lambda name=request_id: completed(connection, name))  # type: ignore[misc]


def milliseconds(seconds: Sequence[float], percent: int) -> float:
    """A percentile."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] * 1000


async def generator() -> Figures:
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
    async with running(folder, *SILENT) as runtime:
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


async def submitted_and_completed(folder: Path, concurrency: int, count: int) -> Figures:
    """Callers that submit and go; the time until the last one shows its result."""
    async with running(folder, "--command", STUB, concurrency=concurrency) as runtime:
        await all_completed(runtime.port, (await submit_many(runtime.port, 500))[0])
        before, started = runtime.cpu_seconds(), time.perf_counter()
        ids, submitting, _ = await submit_many(runtime.port, count)
        await all_completed(runtime.port, ids[-1:])  # a poll costs a tenth of a scrape
        await until(runtime.drained)
        seconds = time.perf_counter() - started
        used = runtime.cpu_seconds() - before
        await all_completed(runtime.port, ids)
    return {
        "rate": count / seconds,
        "submit_rate": count / submitting,
        "cpu_us": used / count * 1e6,
    }


async def polled(folder: Path, callers: int, count: int, pause: float = 0.0) -> Figures:
    """Callers that submit and poll until they have the result."""

    async def work(connection: Connection, _: int) -> None:
        request_id = await submit(connection)
        await until(lambda: completed(connection, request_id), POLL_SECONDS)

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


async def backlog(folder: Path) -> Figures:
    """100,000 requests that wait: memory, and the rate of submission beside that with 100.

    Both queues grow by 18,000 meanwhile. The rates are of all turns together: a page that goes from
    the log to the file is paid for in a few of them.
    """
    folders = {queued: folder / str(queued) for queued in (100, 100_000)}
    spent = dict.fromkeys(folders, 0.0)
    async with contextlib.AsyncExitStack() as stack:
        runtimes = {}
        for queued, each in folders.items():
            each.mkdir()
            runtimes[queued] = await stack.enter_async_context(running(each, *SILENT))
            await submit_many(runtimes[queued].port, queued)
        for turn in range(TURNS):
            for queued in list(folders) if turn % 2 else list(reversed(folders)):
                _, seconds, _ = await submit_many(runtimes[queued].port, TURN_REQUESTS)
                spent[queued] += seconds
        megabytes = runtimes[100_000].megabytes()
    figures = {
        f"rate_at_{queued}": TURNS * TURN_REQUESTS / seconds for queued, seconds in spent.items()
    }
    figures |= {"ratio": spent[100] / spent[100_000], "megabytes": megabytes}
    started = time.perf_counter()
    async with running(folders[100_000], "--command", STUB) as runtime:
        figures["seconds_to_start"] = time.perf_counter() - started
        before, started = await runtime.depth(), time.perf_counter()
        await asyncio.sleep(15)
        done = before - await runtime.depth()
        figures["rate_of_completion"] = done / (time.perf_counter() - started)
        figures["megabytes_restarted"] = runtime.megabytes()
    return figures


async def purging(folder: Path) -> Figures:
    """Submissions while 20,000 old results are forgotten, and after."""
    count = 20_000
    week_ago = time.time() - 8 * 24 * 3600
    storage = SQLiteStorage(folder / "sentiment.sqlite3", clock=lambda: week_ago)
    with storage.transaction():
        for number in range(count):
            storage.add(Request(str(number), (), BODY))
        for delivery in storage.receive(count, 60):
            storage.complete(delivery, BODY * 20)  # 1.2 KB
    storage.close()
    async with running(folder, *SILENT) as runtime:
        _, seconds, each = await submit_many(runtime.port, 3000)
        async with connections(runtime.port, 1) as (connection,):
            await until(lambda: is_forgotten(connection, str(count - 1)))
        _, later, each_later = await submit_many(runtime.port, 3000)
    return {
        "rate": 3000 / seconds,
        "p99_ms": milliseconds(each, 99),
        "rate_after": 3000 / later,
        "p99_ms_after": milliseconds(each_later, 99),
    }


async def is_forgotten(connection: Connection, request_id: str) -> bool:
    """Whether nobody knows it any more."""
    return (await connection.get(f"{PATH}/{request_id}"))[0] == 404


async def model(folder: Path, bodies: Sequence[bytes], concurrency: int) -> Figures:
    """The service's own container: called directly, and through the queue, in turns."""
    bodies = [*bodies] * MODEL_ROUNDS

    async def work(connection: Connection, number: int) -> None:
        status, answer = await connection.post("/", bodies[number % len(bodies)])
        if status != 200 or b"score" not in answer:
            raise RuntimeError(f"{status}: {answer!r}")

    async def through(runtime: Runtime) -> float:
        started = time.perf_counter()
        ids, _, _ = await submit_many(runtime.port, len(bodies), concurrency, bodies)
        await all_completed(runtime.port, ids[-1:])
        await until(runtime.drained)
        return time.perf_counter() - started

    ratios, rates = [], []
    async with running(folder, concurrency=concurrency) as runtime:
        await until(lambda: answers(runtime.container_port, "/healthcheck"))
        await call(runtime.container_port, 200, concurrency, work)
        for _ in range(MODEL_TURNS):
            direct, _ = await call(runtime.container_port, len(bodies), concurrency, work)
            ratios.append(direct / await through(runtime))
            rates.append(len(bodies) / direct)
    return {"direct_rate": statistics.median(rates), "of_direct": statistics.median(ratios)}


Scenario = Callable[[Path, Sequence[bytes]], Coroutine[Any, Any, Figures]]
SCENARIOS: dict[str, Scenario] = {
    "generator": lambda _, __: generator(),
    "submitted alone": lambda folder, _: submitted_alone(folder),
    "submitted and completed": lambda folder, _: submitted_and_completed(folder, 16, 10_000),
    "the same, max_concurrency 1": lambda folder, _: submitted_and_completed(folder, 1, 3000),
    "submitted and polled by 32": lambda folder, _: polled(folder, CALLERS, 5000),
    "submitted and polled by one": lambda folder, _: polled(folder, 1, 500, 0.02),
    "100,000 queued": lambda folder, _: backlog(folder),
    "20,000 purged": lambda folder, _: purging(folder),
    "the model, max_concurrency 1": lambda folder, bodies: model(folder, bodies, 1),
    "the model, max_concurrency 8": lambda folder, bodies: model(folder, bodies, 8),
    "the model, max_concurrency 32": lambda folder, bodies: model(folder, bodies, 32),
}


def table(figures: dict[str, Figures]) -> str:
    """For the documents."""
    lines = ["| what | figures |", "| --- | --- |"]
    for name, each in figures.items():
        cells = (f"{key} {value:.{0 if value >= 10 else 2}f}" for key, value in each.items())
        lines.append(f"| {name} | {', '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="labelled texts for the model, such as dev.tsv")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--texts", type=int, default=872, help="of the file in each turn")
    parser.add_argument("--output", type=Path, help="folder of queue.json")
    options = parser.parse_args()
    texts = [example.text for example in read_examples(options.file)][: options.texts]
    bodies = [json.dumps({"input_text": text}).encode() for text in texts]
    figures: dict[str, Figures] = {}
    for name in options.only:
        # On the disk that the queue would be on: /tmp may be memory.
        with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
            figures[name] = uvloop.run(SCENARIOS[name](Path(folder), bodies))
        print(name, figures[name], file=sys.stderr, flush=True)
    if options.output is not None:
        raw = {"cores": os.cpu_count(), "python": platform.python_version(), "figures": figures}
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "queue.json").write_text(json.dumps(raw, indent=1) + "\n", "utf-8")
    print(table(figures))


if __name__ == "__main__":
    main()
