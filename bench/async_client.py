"""async_requests.py against the AsyncAPI of one machine: rates, memory, and that no row is lost.

    python -m bench.async_client rows                 100,000 rows, a container that answers at once
    python -m bench.async_client model sst2/dev.tsv   2,000 real rows, the real model
    python -m bench.async_client http                 what an HTTP exchange costs

Each prints a table. ``rows`` and ``model`` start the runtime of cortex.yaml on free ports.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

import async_requests
from bench.stub_container import predict
from project.sentiment.data import read_examples
from tests.helpers import RuntimeProcess, free_port, serve

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "async_requests.py"
STUB = f"{sys.executable} -m bench.stub_container $(CORTEX_PORT)"
ROW_SIZES = (8, 32)
MODEL_SIZES = (1, 8, 16, 32, 64)
DIRECT = ((8, 1), (2, 32), (2, 64))
"""Callers and texts in a request, of those who call the container directly; the best counts."""


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one run of the client.

    Attributes:
        rate: texts per second, from the start of the process to its end.
        cpu_ms: CPU time of the process per request of the API, its start included.
        megabytes: resident at most.
        polls: per request.
    """

    rate: float
    cpu_ms: float
    megabytes: float
    polls: float


@contextmanager
def runtime(folder: Path, *arguments: str) -> Iterator[str]:
    """The runtime of cortex.yaml with free ports; yields its URL."""
    config = (ROOT / "cortex.yaml").read_text(encoding="utf-8")
    port = re.findall(r"^ +port: (\d+)", config, re.MULTILINE)[0]
    config = re.sub(rf"\b{port}\b", str(free_port()), config)
    (folder / "cortex.yaml").write_text(config, encoding="utf-8")
    process = RuntimeProcess(folder, ["--log-level", "warning", *arguments])
    try:
        yield process.url()
    finally:
        process.interrupt()


def container_url(folder: Path) -> str:
    """Where the container is, by what the runtime has printed."""
    text = (folder / "output.txt").read_text(encoding="utf-8")
    return re.findall(r"its container on (\S+)", text)[-1]


def run_client(url: str, source: Path, output: Path, size: int, *options: str) -> Figures:
    """Run the client as a process, and look at what it took."""
    command = [sys.executable, str(SCRIPT), "--endpoint", url, "--file", str(source), "--output",
               str(output), "--batch-size", str(size), "--json", *options]  # fmt: skip
    started = time.monotonic()
    with tempfile.TemporaryFile() as summary_file:
        process = subprocess.Popen(command, stdout=summary_file, stderr=subprocess.DEVNULL)  # noqa: S603
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - started
        summary_file.seek(0)
        summary = json.loads(summary_file.read())
    if process.returncode:
        raise SystemExit(f"the client ended with {process.returncode}: {summary}")
    requests = summary["posts"]
    cpu = usage.ru_utime + usage.ru_stime
    return Figures(
        summary["texts"] / seconds,
        cpu / requests * 1000,
        usage.ru_maxrss / 1024,
        summary["polls"] / requests,
    )


def write_rows(path: Path, count: int) -> None:
    """Rows of about 120 bytes, each of its own; every fiftieth has a line feed in it."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "text", "note"])
        for number in range(count):
            words = "a film that is " + "very " * (number % 20) + f'"good", number {number}'
            writer.writerow([number, words + "\nindeed" * (number % 50 == 0), "kept"])


def check_rows(path: Path, count: int) -> None:
    """Every row once, in order, with what belongs to its text."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for number, row in enumerate(rows):
            expected = predict(row[1])
            if row[0] != str(number) or (row[3], float(row[4])) != tuple(expected.values()):
                raise SystemExit(f"row {number} is {row}")
    if number + 1 != count:
        raise SystemExit(f"{number + 1} rows instead of {count}")


def rows(count: int, sizes: Sequence[int]) -> None:
    """Print what the client does with many rows and a container that takes no time."""
    print("| texts in a request | state file | texts/s | CPU ms a request | polls | MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, output = folder / "in.csv", folder / "out.csv"
        write_rows(source, count)
        with runtime(folder, "--command", STUB) as url:
            for size, stateful in itertools.product(sizes, (False, True)):
                state = ["--state", str(folder / f"{size}.state")] if stateful else []
                found = run_client(url, source, output, size, *state)
                check_rows(output, count)
                print(
                    f"| {size} | {'yes' if stateful else 'no'} | {found.rate:,.0f} |"
                    f" {found.cpu_ms:.2f} | {found.polls:.2f} | {found.megabytes:.0f} |",
                    flush=True,
                )
    print(f"\nAll {count:,} rows once, in order, with what belongs to their texts.")


async def direct_rate(url: str, texts: Sequence[str], callers: int, size: int) -> float:
    """Texts per second of callers who post to the container, over connections that stay open."""
    batches = iter([texts[i : i + size] for i in range(0, len(texts), size)])

    async def call(http: httpx.AsyncClient) -> None:
        for batch in batches:
            body = async_requests.encode_texts(batch)
            (await http.post(url, content=body)).raise_for_status()

    async with httpx.AsyncClient(timeout=300) as http:
        started = time.monotonic()
        await asyncio.gather(*(call(http) for _ in range(callers)))
        return len(texts) / (time.monotonic() - started)


def model(dev: Path, count: int, rounds: int, sizes: Sequence[int]) -> None:
    """Print the client's rates with the real model, and those of direct callers in between."""
    texts = [example.text for example in read_examples(dev)]
    texts = list(itertools.islice(itertools.cycle(texts), count))
    direct: dict[tuple[int, int], list[float]] = {each: [] for each in DIRECT}
    through: dict[int, list[Figures]] = {size: [] for size in sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "in.txt"
        source.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
        with runtime(folder) as url:
            container = container_url(folder)
            asyncio.run(direct_rate(container, texts[:200], 8, 1))  # warms up
            for _ in range(rounds):
                for callers, size in DIRECT:
                    rate = asyncio.run(direct_rate(container, texts, callers, size))
                    direct[callers, size].append(rate)
                    print(f"{callers} callers, {size}: {rate:.0f}", file=sys.stderr)
                for size in sizes:
                    found = run_client(url, source, folder / "out.jsonl", size)
                    through[size].append(found)
                    print(f"the client, {size}: {found.rate:.0f}", file=sys.stderr)
    _print_model(direct, through)


def _print_model(
    direct: dict[tuple[int, int], list[float]], through: dict[int, list[Figures]]
) -> None:
    best = max(max(rates) for rates in direct.values())
    print("| who | texts in a request | texts/s | of the best direct one | CPU ms a request |")
    print("| --- | --- | --- | --- | --- |")
    for (callers, size), rates in direct.items():
        share = max(rates) / best
        print(f"| {callers} direct callers | {size} | {max(rates):.0f} | {share:.0%} | |")
    for size, runs in through.items():
        found = max(runs, key=lambda each: each.rate)
        print(
            f"| async_requests.py | {size} | {found.rate:.0f} | {found.rate / best:.0%} |"
            f" {found.cpu_ms:.1f} |"
        )


async def _answer(scope: dict[str, object], receive: object, send: object) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})  # type: ignore[operator]
    await send({"type": "http.response.body", "body": b'{"id":"a"}'})  # type: ignore[operator]


async def _exchange_cost(url: str, connections: int, clients: int, count: int) -> float:
    """Microseconds of CPU an exchange, with ``connections`` spread over ``clients``."""
    limits = httpx.Limits(max_connections=connections // clients)
    free: asyncio.LifoQueue[httpx.AsyncClient] = asyncio.LifoQueue()
    made = [httpx.AsyncClient(limits=limits, timeout=30) for _ in range(clients)]
    for client in made * (connections // clients):
        free.put_nowait(client)

    async def call(calls: int) -> None:
        for _ in range(calls):
            client = await free.get()
            await client.send(httpx.Request("POST", url, content=b"x" * 50))
            free.put_nowait(client)

    await call(50)
    started = time.process_time()
    await asyncio.gather(*(call(count // connections) for _ in range(connections)))
    cost = (time.process_time() - started) / count * 1e6
    for client in made:
        await client.aclose()
    return cost


def http(count: int, connections: int = 16) -> None:
    """Print why the client has a pool of clients, and what it tells Python of a module."""
    with subprocess.Popen(
        [sys.executable, "-c", "from bench.async_client import _serve; _serve()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as server:  # fmt: skip
        url = server.stdout.readline().strip()  # type: ignore[union-attr]
        print("| clients for 16 connections | CPU us an exchange | sniffio known to be absent |")
        print("| --- | --- | --- |")
        for absent in (False, True):
            if absent:
                sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
            for clients in (1, connections):
                costs = [
                    asyncio.run(_exchange_cost(url, connections, clients, count)) for _ in range(3)
                ]
                print(f"| {clients} | {min(costs):.0f} | {'yes' if absent else 'no'} |", flush=True)
        server.terminate()


def _serve() -> None:
    with serve(_answer) as url:
        print(url, flush=True)
        sys.stdin.read()


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("rows")
    command.add_argument("--rows", type=int, default=100_000)
    command.add_argument("--sizes", type=int, nargs="*", default=ROW_SIZES)
    command = commands.add_parser("model")
    command.add_argument("dev", type=Path)
    command.add_argument("--rows", type=int, default=2000)
    command.add_argument("--rounds", type=int, default=2)
    command.add_argument("--sizes", type=int, nargs="*", default=MODEL_SIZES)
    command = commands.add_parser("http")
    command.add_argument("--requests", type=int, default=4000)
    options = parser.parse_args()
    if options.command == "rows":
        rows(options.rows, options.sizes)
    elif options.command == "model":
        model(options.dev, options.rows, options.rounds, options.sizes)
    else:
        http(options.requests)


if __name__ == "__main__":
    main()
