"""Over HTTP: our container against what users would deploy instead, on the same weights and cores.

    python -m bench.http sst2/dev.tsv --output docs/performance

Needs ``wrk`` on the path and ``bench/requirements.txt``. All servers are started, and held still
but for the one that is measured. They take short turns, ``--rounds`` times, so that what else the
machine does meets all of them, and the medians count; ratios are medians of the ratios within each
round. A turn begins with a warm-up that is not counted, and ends when the server has nothing left
to do, or it would pay for it in its next turn. "in process" is the batcher without HTTP in the same
rounds. "null" answers at once: it shows what the load generator can do.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench import CONCURRENCIES, IN_PROCESS, NULL
from bench.inprocess import ask, in_process
from bench.load import HealthWatch, Turn, load, make_mixes, write_bodies
from bench.servers import SERVERS, Running, Started, running

STARTS = 2  # of every server, to measure how long one takes


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn of load: texts per second, latencies, and the load generator's share of the CPU."""

    server: str
    mix: str
    concurrency: int
    round: int
    rate: float
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    errors: int = 0
    health_ms: tuple[float, ...] = ()
    load_cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a server costs: seconds to ready, and MB when idle, after the load, and at most."""

    server: str
    ready_seconds: list[float]
    idle_mb: float
    loaded_mb: float
    peak_mb: float


def take_turn(
    name: str, server: Running, bodies: Path, mix: str, concurrency: int, number: int, turn: Turn
) -> Figures:
    """Load one server while the others are still."""
    with server.awake():
        watch = HealthWatch(server.url + SERVERS[name].health)
        watch.start()
        got = load(server.url, bodies, concurrency, turn)
        health = tuple(watch.milliseconds())
        server.wait_until_idle()
    return Figures(
        name, mix, concurrency, number, got["rate"],
        got["p50_ms"], got["p99_ms"], int(got["errors"]), health, got["cpu"],
    )  # fmt: skip


def measure_starts(names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds to ready of every server, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        for name in names:
            with running(SERVERS[name]) as started:
                seconds[name].append(started.seconds)
    return seconds


def measure_rounds(servers: Started, file: Path, rounds: int, turn: Turn) -> list[Figures]:
    """Every server's turn in every round, mix and concurrency."""
    figures: list[Figures] = []
    mixes = make_mixes(file)
    chance = random.Random(0)  # noqa: S311
    with tempfile.TemporaryDirectory() as folder, in_process(file) as process:
        bodies = {
            (mix, lists): write_bodies(texts, Path(folder), mix, lists=lists)
            for mix, texts in mixes.items()
            for lists in (False, True)
        }
        for number, mix, concurrency in itertools.product(range(rounds), mixes, CONCURRENCIES):
            now = replace(turn, first=chance.randrange(len(mixes[mix])))
            rate = ask(process, mix, concurrency, now)
            figures.append(Figures(IN_PROCESS, mix, concurrency, number, rate))
            for server in servers.names:
                if SERVERS[server].learns and concurrency == 1:
                    servers.start(server)
                of_server = replace(now, window=1) if server == NULL else now
                sent = bodies[mix, SERVERS[server].lists]
                figures.append(
                    take_turn(server, servers[server], sent, mix, concurrency, number, of_server)
                )
            for each in figures[-len(servers.names) - 1 :]:
                print(f"{number} {mix} {concurrency} {each.server}: {each.rate:.0f}",
                      file=sys.stderr, flush=True)  # fmt: skip
    return figures


def measure(file: Path, names: Sequence[str], rounds: int, turn: Turn) -> dict[str, object]:
    """All figures, ready for JSON."""
    ready = measure_starts(names)
    with Started(names) as servers:
        idle = {name: servers[name].memory_mb() for name in names}
        figures = measure_rounds(servers, file, rounds, turn)
        starts = [
            Start(name, ready[name], idle[name], servers[name].memory_mb(), servers[name].peak_mb())
            for name in names
        ]
    return {"figures": [asdict(each) for each in figures], "starts": [asdict(e) for e in starts]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--window", type=int, default=Turn().window, help="seconds of a figure")
    parser.add_argument("--servers", nargs="*", default=list(SERVERS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    version = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)  # noqa: S607
    raw = {
        "load": version.stdout.splitlines()[0] if version.stdout else "wrk",
        **measure(options.file, options.servers, options.rounds, Turn(window=options.window)),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "http.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
