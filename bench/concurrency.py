"""How many requests a pod should be sent at the same time: the throughput by ``max_concurrency``.

    python -m bench.concurrency sst2/dev.tsv

Stands in for Cortex's dequeuer: so many workers, each of which spends its time on AWS (eight calls
one after another for each request, simulated by a pause), sends one request to the container, and
begins again. Prints texts per second and the 50th and 99th percentile of the container's answers.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from bench.load import make_mixes
from bench.servers import SERVERS, running

WORKERS = (1, 2, 4, 8, 16, 32, 64)
PAUSES = (0.0, 0.05, 0.2)
"""Seconds of AWS calls per request: none (one machine), within a region, and a slow one."""


async def measure(url: str, texts: list[str], workers: int, pause: float, seconds: float) -> str:
    """One line of the table."""
    supply: Iterator[str] = itertools.cycle(texts)
    times: list[float] = []
    async with aiohttp.ClientSession() as session:
        end = time.perf_counter() + seconds

        async def work() -> None:
            while time.perf_counter() < end:
                await asyncio.sleep(pause)
                start = time.perf_counter()
                async with session.post(url, json={"input_text": next(supply)}) as response:
                    await response.read()
                    response.raise_for_status()
                times.append(time.perf_counter() - start)

        start = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(workers)))
        rate = len(times) / (time.perf_counter() - start)
    percentiles = statistics.quantiles(times, n=100)
    p50, p99 = 1000 * percentiles[49], 1000 * percentiles[98]
    return f"| {pause * 1000:.0f} | {workers} | {rate:.0f} | {p50:.0f} | {p99:.0f} |"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=8)
    options = parser.parse_args()
    texts = make_mixes(options.file)["dev"]
    print("| ms on AWS | max_concurrency | texts/s | p50 ms | p99 ms |\n|" + " --- |" * 5)
    with running(SERVERS["ours"]) as server:
        asyncio.run(measure(server.url, texts, 8, 0, options.seconds))  # warm
        for pause, workers in itertools.product(PAUSES, WORKERS):
            line = asyncio.run(measure(server.url, texts, workers, pause, options.seconds))
            print(line, flush=True)


if __name__ == "__main__":
    main()
