"""What is sent, and what comes of it: the mixes of texts, wrk, and a watch on the health."""

from __future__ import annotations

import http.client
import json
import math
import random
import resource
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from project.sentiment.cpus import available_cpus
from project.sentiment.data import read_examples

LONG_TEXTS = 12  # joined to make a long one
PERIOD_SECONDS, TIMEOUT_SECONDS = 0.05, 60.0  # of the questions for the health


@dataclass(frozen=True, slots=True)
class Turn:
    """When a server is under load: seconds of warm-up, and of the window that is counted.

    Attributes:
        first: the text to begin with: a slow server answers only the first ones.
    """

    warm_up: int = 1
    window: int = 3
    first: int = 0

    @property
    def seconds(self) -> int:
        """Of load."""
        return self.warm_up + self.window


def make_mixes(file: Path) -> dict[str, list[str]]:
    """The texts of ``file``, and the same with every tenth replaced by a long one."""
    chance = random.Random(0)  # noqa: S311
    texts = [example.text for example in read_examples(file)]
    chance.shuffle(texts)
    long = [
        " ".join(chance.choices(texts, k=LONG_TEXTS)) if number % 10 == 0 else text
        for number, text in enumerate(texts)
    ]
    return {"dev": texts, "long mix": long}


def write_bodies(texts: list[str], folder: Path, name: str, *, lists: bool) -> Path:
    """A JSON body a line, for wrk."""
    path = folder / f"{name}-{lists}.jsonl".replace(" ", "-")
    bodies = (json.dumps({"input_text": [text] if lists else text}) for text in texts)
    path.write_text("\n".join(bodies) + "\n", encoding="utf-8")
    return path


def load(url: str, bodies: Path, concurrency: int, turn: Turn) -> dict[str, float]:
    """Wrk's figures for ``concurrency`` connections.

    Returns:
        requests, seconds, rate (2xx answers a second within the window), errors, p50_ms, p99_ms,
        and ``cpu``: the share of all cores, 0 to 1, that making the load took from the server.
    """
    before = _cpu_seconds()
    done = subprocess.run(  # noqa: S603
        ["wrk", "-t1", f"-c{concurrency}", f"-d{turn.seconds}s", "--timeout", "60s",  # noqa: S607
         "-s", "bench/post.lua", f"{url}/", "--",
         str(bodies), str(turn.first), str(turn.warm_up), str(turn.window)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    figures: dict[str, float] = json.loads(line.removeprefix("JSON "))
    cpu = (_cpu_seconds() - before) / figures["seconds"] / available_cpus()
    return {**figures, "cpu": cpu}


def _cpu_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


class HealthWatch(threading.Thread):
    """Asks for the health 20 times a second and keeps the latencies.

    A latency counts from when its question was due: those that one slow answer held up are slow as
    well, asked or not. No answer within ``TIMEOUT_SECONDS``, or one that is no 200, took for ever.
    """

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._address, self._path = urlsplit(url).netloc, urlsplit(url).path
        self._over = threading.Event()
        self._end = math.inf
        self._seconds: list[float] = []

    def run(self) -> None:
        """Until :meth:`milliseconds` is called."""
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        due = time.perf_counter() + PERIOD_SECONDS
        while not self._over.wait(max(0.0, due - time.perf_counter())):
            well = self._ask(connection)
            self._seconds.append(time.perf_counter() - due if well else math.inf)
            due += PERIOD_SECONDS
        connection.close()
        while due < self._end:
            self._seconds.append(time.perf_counter() - due)
            due += PERIOD_SECONDS

    def _ask(self, connection: http.client.HTTPConnection) -> bool:
        try:
            connection.request("GET", self._path)
            response = connection.getresponse()
            response.read()
        except (OSError, http.client.HTTPException):
            connection.close()  # the next question connects anew
            return False
        return response.status == 200

    def milliseconds(self) -> list[float]:
        """End, and report every latency."""
        self._end = time.perf_counter()
        self._over.set()
        self.join()
        return [round(each * 1000, 2) for each in self._seconds]


def peak_mb(pid: int) -> float:
    """The most that was resident of a process. Source: proc_pid_status(5), ``VmHWM``."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 2**10


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of ``values`` are not above, by rank; NaN of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def growth(values: Sequence[float], minute: int) -> float:
    """From the second minute's median to the last's, as a share: single values swing.

    Args:
        minute: how many of ``values`` make one.
    """
    return median(values[-minute:]) / median(values[minute : 2 * minute]) - 1
