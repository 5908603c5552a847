"""How much memory the container takes when it is asked for as much as it may be.

    python -m bench.memory sst2/dev.tsv

Prints what is resident when it is ready, and the most there was after one request of 900 short and
8 very long texts, and after 32 callers at once have sent very long texts; in MB, on all cores.
Exit code 1 if a request was neither answered nor refused for what waits already.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import httpx

from bench.servers import SERVERS, Running, running
from project.sentiment.data import read_examples

SHORT, LONG, WORDS = 900, 8, 5000
CALLERS, REQUESTS = 32, 64
REFUSED = 503  # more than may wait


def ask(server: Running, texts: Sequence[str]) -> int:
    """The status of a request for all of ``texts``."""
    return httpx.post(server.url, json={"input_text": texts}, timeout=300).status_code


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    texts = [example.text for example in read_examples(parser.parse_args().file)]
    words = islice(cycle(" ".join(texts).split()), LONG * WORDS)
    long = [" ".join(islice(words, WORDS)) for _ in range(LONG)]
    with running(SERVERS["ours"]) as server:
        print(f"ready: {server.process.memory_info().rss / 2**20:.0f} MB")
        status = ask(server, [*islice(cycle(texts), SHORT), *long])
        print(f"one large request ({status}): {server.peak_mb():.0f} MB at most")
        with ThreadPoolExecutor(CALLERS) as pool:
            statuses = list(pool.map(lambda _: ask(server, long), range(REQUESTS)))
        print(
            f"{CALLERS} callers, {len(statuses)} requests for {LONG} very long texts,"
            f" {statuses.count(REFUSED)} refused, {statuses.count(200)} answered:"
            f" {server.peak_mb():.0f} MB at most"
        )
    return int(status != 200 or not set(statuses) <= {200, REFUSED})


if __name__ == "__main__":
    sys.exit(main())
