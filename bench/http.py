"""Over HTTP: our container against what users would deploy instead, on the same weights and cores.

    python -m bench.http sst2/dev.tsv --output docs/performance

Needs ``wrk`` on the path and ``bench/requirements.txt``. One server runs at a time; they take
turns, ``--rounds`` times, and the best round counts. ``null`` answers at once and does nothing: it
shows what the load generator can do.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx
import psutil

from project.sentiment.data import read_examples

CONCURRENCIES = (1, 8, 32, 64)
COLUMNS = (
    "server",
    "callers",
    "texts/s",
    "ours / its",
    "p50 ms",
    "p99 ms",
    "health p99 ms",
    "errors",
)
PYTHON = sys.executable
UVICORN = (PYTHON, "-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port", "{port}")
LITSERVE = (PYTHON, "-m", "bench.peers.litserve_server", "{port}")
BENTOML = (
    PYTHON,
    "-m",
    "bentoml",
    "serve",
    "bench.peers.bentoml_service:Sentiment",
    "-p",
    "{port}",
)


@dataclass(frozen=True, slots=True)
class Server:
    """How to start one, where it says that it is ready, and whether it takes lists only."""

    command: tuple[str, ...]
    health: str = "/healthcheck"
    env: dict[str, str] = field(default_factory=dict)
    lists: bool = False


SERVERS = {
    "ours": Server((*UVICORN, "--factory", "project.app:create_app")),
    "FastAPI + pipeline": Server((*UVICORN, "bench.peers.fastapi_pipeline:app")),
    "LitServe + pipeline": Server(LITSERVE),
    "LitServe + our session": Server((*LITSERVE, "--onnx")),
    "BentoML + pipeline": Server(BENTOML, "/readyz", lists=True),
    "BentoML + our session": Server(BENTOML, "/readyz", {"PEER_ONNX": "1"}, lists=True),
    "null": Server((*UVICORN, "bench.peers.null:app")),
}


@dataclass(frozen=True, slots=True)
class Figures:
    """One turn of load."""

    server: str
    mix: str
    concurrency: int
    rate: float  # texts per second
    p50_ms: float
    p99_ms: float
    errors: int
    health_p99_ms: float


@dataclass(frozen=True, slots=True)
class Start:
    """What a server costs before its first request, and after the load."""

    server: str
    ready_seconds: float
    resident_mb: float


@contextlib.contextmanager
def running(server: Server) -> Iterator[tuple[str, subprocess.Popen[bytes], float]]:
    """Start ``server``; yields its URL, its process and the seconds until it was ready."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    start = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603
        [word.format(port=port) for word in server.command],
        env={**os.environ, **server.env, "BENTOML_DO_NOT_TRACK": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not _healthy(url + server.health):
            if time.perf_counter() - start > 120 or process.poll() is not None:
                raise RuntimeError(f"{server.command} does not become ready")
            time.sleep(0.02)
        yield url, process, time.perf_counter() - start
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.HTTPError:
        return False


def load(url: str, bodies: Path, concurrency: int, seconds: int) -> dict[str, float]:
    """Wrk's figures for ``concurrency`` connections."""
    done = subprocess.run(  # noqa: S603
        ["wrk", "-t1", f"-c{concurrency}", f"-d{seconds}s", "--timeout", "60s",  # noqa: S607
         "-s", "bench/post.lua", f"{url}/", "--", str(bodies)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    figures: dict[str, float] = json.loads(line.removeprefix("JSON "))
    return figures


class HealthWatch(threading.Thread):
    """Asks for the health 20 times a second and keeps the latencies."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self._over = threading.Event()
        self._seconds: list[float] = []

    def run(self) -> None:
        """Until :meth:`p99_ms` is called."""
        with httpx.Client(timeout=60) as client:
            while not self._over.wait(0.05):
                start = time.perf_counter()
                client.get(self._url)
                self._seconds.append(time.perf_counter() - start)

    def p99_ms(self) -> float:
        """End, and report."""
        self._over.set()
        self.join()
        ordered = sorted(self._seconds)
        return ordered[min(len(ordered) - 1, round(0.99 * len(ordered)))] * 1000 if ordered else 0.0


def resident_mb(process: subprocess.Popen[bytes]) -> float:
    """Resident memory of the process and all that it started."""
    root = psutil.Process(process.pid)
    family = [root, *root.children(recursive=True)]
    return float(sum(each.memory_info().rss for each in family)) / 2**20


def make_mixes(file: Path) -> dict[str, list[str]]:
    """The texts of ``file``, and the same with every tenth replaced by a long one."""
    chance = random.Random(0)  # noqa: S311
    texts = [example.text for example in read_examples(file)]
    chance.shuffle(texts)
    long = [
        " ".join(chance.choices(texts, k=12)) if number % 10 == 0 else text
        for number, text in enumerate(texts)
    ]
    return {"dev": texts, "long mix": long}


def write_bodies(texts: list[str], folder: Path, name: str, *, lists: bool) -> Path:
    """A JSON body a line, for wrk."""
    path = folder / f"{name}-{lists}.jsonl".replace(" ", "-")
    bodies = (json.dumps({"input_text": [text] if lists else text}) for text in texts)
    path.write_text("\n".join(bodies) + "\n", encoding="utf-8")
    return path


def measure_server(
    name: str, mixes: dict[str, list[str]], folder: Path, seconds: int
) -> tuple[Start, list[Figures]]:
    """One turn of every mix and concurrency."""
    server, figures = SERVERS[name], []
    with running(server) as (url, process, ready):
        for mix, texts in mixes.items():
            bodies = write_bodies(texts, folder, mix, lists=server.lists)
            load(url, bodies, 8, 1)  # warm-up
            for concurrency in CONCURRENCIES:
                watch = HealthWatch(url + server.health)
                watch.start()
                got = load(url, bodies, concurrency, seconds)
                figures.append(
                    Figures(
                        name, mix, concurrency, got["requests"] / got["seconds"], got["p50_ms"],
                        got["p99_ms"], int(got["errors"]), watch.p99_ms(),
                    )
                )  # fmt: skip
                print(figures[-1], file=sys.stderr, flush=True)
        return Start(name, ready, resident_mb(process)), figures


def best(figures: list[Figures]) -> dict[tuple[str, str, int], Figures]:
    """The turn with the highest rate of every server, mix and concurrency."""
    chosen: dict[tuple[str, str, int], Figures] = {}
    for each in figures:
        key = each.server, each.mix, each.concurrency
        if key not in chosen or each.rate > chosen[key].rate:
            chosen[key] = each
    return chosen


def table(figures: list[Figures], starts: list[Start]) -> str:
    """Rates and latencies, and how many times the rate of each peer ours is."""
    chosen, lines = best(figures), []
    for mix in dict.fromkeys(each.mix for each in figures):
        lines += [f"### {mix}", "", "| " + " | ".join(COLUMNS) + " |", "| --- " * 8 + "|"]
        for (server, its_mix, callers), each in chosen.items():
            if its_mix != mix:
                continue
            ours = chosen.get(("ours", mix, callers))
            ratio = f"{ours.rate / each.rate:.2f}" if ours and each.rate else ""
            cells = (server, callers, f"{each.rate:.0f}", ratio, f"{each.p50_ms:.0f}")
            cells += (f"{each.p99_ms:.0f}", f"{each.health_p99_ms:.0f}", each.errors)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    lines += [
        "### start and memory",
        "",
        "| server | s to ready | resident MB |",
        "| --- " * 3 + "|",
    ]
    for name in dict.fromkeys(each.server for each in starts):
        mine = [each for each in starts if each.server == name]
        ready = min(each.ready_seconds for each in mine)
        lines.append(f"| {name} | {ready:.1f} | {max(each.resident_mb for each in mine):.0f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--seconds", type=int, default=5, help="of load for one figure")
    parser.add_argument("--servers", nargs="*", default=list(SERVERS))
    options = parser.parse_args()
    mixes = make_mixes(options.file)
    figures: list[Figures] = []
    starts: list[Start] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.rounds):
            for name in options.servers:
                start, more = measure_server(name, mixes, Path(folder), options.seconds)
                starts.append(start)
                figures += more
    raw = {"figures": [asdict(each) for each in figures], "starts": [asdict(e) for e in starts]}
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "http.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")
    print(table(figures, starts))


if __name__ == "__main__":
    main()
