"""Over HTTP: our container against what users would deploy instead, on the same weights and cores.

    python -m bench.http sst2/dev.tsv --output docs/performance

Needs ``wrk`` on the path and ``bench/requirements.txt``. All servers are started, and held still
but for the one that is measured. They take short turns, ``--rounds`` times, so that what else the
machine does meets all of them, and the medians count; ratios are medians of the ratios within each
round. "in process" is the batcher without HTTP in the same rounds. "null" answers at once: it shows
what the load generator can do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.inprocess import ask, in_process
from bench.load import HealthWatch, load, make_mixes, write_bodies
from bench.servers import SERVERS, Running, running

CONCURRENCIES = (1, 8, 32, 64)
IN_PROCESS = "in process"
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
    health_p99_ms: float = 0.0
    load_cpu: float = 0.0


@dataclass(frozen=True, slots=True)
class Start:
    """What a server costs: seconds to ready, and resident MB when idle and after the load."""

    server: str
    ready_seconds: list[float]
    idle_mb: float
    loaded_mb: float


@dataclass(frozen=True, slots=True)
class Turn:
    """One server's turn: what is sent to it, and for how long."""

    name: str
    running: Running
    bodies: Path
    seconds: int

    def measure(self, mix: str, concurrency: int, number: int) -> Figures:
        """Load it while the others are still."""
        with self.running.awake():
            watch = HealthWatch(self.running.url + SERVERS[self.name].health)
            watch.start()
            got = load(self.running.url, self.bodies, concurrency, self.seconds)
            return Figures(
                self.name, mix, concurrency, number, got["rate"],
                got["p50_ms"], got["p99_ms"], int(got["errors"]), watch.p99_ms(), got["cpu"],
            )  # fmt: skip


def measure_starts(names: Sequence[str]) -> dict[str, list[float]]:
    """Seconds to ready of every server, one after the other."""
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(STARTS):
        for name in names:
            with running(SERVERS[name]) as started:
                seconds[name].append(started.seconds)
    return seconds


def measure_rounds(
    servers: dict[str, Running], file: Path, rounds: int, seconds: int
) -> list[Figures]:
    """Every server's turn in every round, mix and concurrency."""
    figures: list[Figures] = []
    mixes = make_mixes(file)
    with tempfile.TemporaryDirectory() as folder, in_process(file) as process:
        for name, server in servers.items():  # warm-up
            bodies = write_bodies(
                mixes["long mix"], Path(folder), "warm", lists=SERVERS[name].lists
            )
            Turn(name, server, bodies, 1).measure("", 8, 0)
        for number in range(rounds):
            for mix, texts in mixes.items():
                for concurrency in CONCURRENCIES:
                    rate = ask(process, mix, concurrency, seconds)
                    figures.append(Figures(IN_PROCESS, mix, concurrency, number, rate))
                    for name, server in servers.items():
                        bodies = write_bodies(texts, Path(folder), mix, lists=SERVERS[name].lists)
                        turn = Turn(name, server, bodies, 1 if name == "null" else seconds)
                        figures.append(turn.measure(mix, concurrency, number))
                        print(figures[-1], file=sys.stderr, flush=True)
    return figures


def measure(file: Path, names: Sequence[str], rounds: int, seconds: int) -> dict[str, object]:
    """All figures, ready for JSON."""
    ready = measure_starts(names)
    with contextlib.ExitStack() as stack:
        servers, idle = {}, {}
        for name in names:
            servers[name] = stack.enter_context(running(SERVERS[name]))
            idle[name] = servers[name].resident_mb()
            with servers[name].awake():
                pass
        figures = measure_rounds(servers, file, rounds, seconds)
        starts = [
            Start(name, ready[name], idle[name], servers[name].resident_mb()) for name in names
        ]
    return {"figures": [asdict(each) for each in figures], "starts": [asdict(e) for e in starts]}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=2, help="of load for one figure")
    parser.add_argument("--servers", nargs="*", default=list(SERVERS))
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers are ended
    version = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False)  # noqa: S607
    raw = {
        "load": version.stdout.splitlines()[0] if version.stdout else "wrk",
        **measure(options.file, options.servers, options.rounds, options.seconds),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "http.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
