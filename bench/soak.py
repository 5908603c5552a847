"""Ten minutes of load on the container: does its memory grow?

    python -m bench.soak sst2/dev.tsv --seconds 600

Prints the resident memory every 30 seconds, and at the end the requests, the errors and the growth
from the first minute to the last.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from pathlib import Path

from bench.load import load, make_mixes, write_bodies
from bench.servers import SERVERS, running

CONCURRENCY = 32
PERIOD_SECONDS = 30


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    over, memory = threading.Event(), []
    with tempfile.TemporaryDirectory() as folder, running(SERVERS["ours"]) as server:
        texts = make_mixes(options.file)["long mix"]
        bodies = write_bodies(texts, Path(folder), "soak", lists=False)

        def watch() -> None:
            while not over.wait(PERIOD_SECONDS):
                memory.append(server.resident_mb())
                print(f"{len(memory) * PERIOD_SECONDS:>5} s {memory[-1]:.0f} MB", flush=True)

        watcher = threading.Thread(target=watch)
        watcher.start()
        figures = load(server.url, bodies, CONCURRENCY, options.seconds)
        over.set()
        watcher.join()
    print(
        f"{figures['requests']:.0f} requests, {figures['errors']:.0f} errors,"
        f" {memory[-1] - memory[1]:+.1f} MB from {2 * PERIOD_SECONDS} s to the end"
    )


if __name__ == "__main__":
    main()
