"""The servers that are compared: how each is started, held still, and looked at."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import psutil

from bench import IMAGE_ENV
from bench.load import peak_mb

START_SECONDS = 120
IDLE_SECONDS, LOOK_SECONDS, IDLE_SHARE = 20.0, 0.2, 0.15
PRODUCT = ".venv/bin/python" if Path(".venv/bin/python").exists() else sys.executable
"""The product runs with what it is shipped with; the peers with ``bench/requirements.txt``."""

UVICORN = ("-m", "uvicorn", "--no-access-log", "--log-level", "warning", "--port", "{port}")
LITSERVE = (sys.executable, "-m", "bench.peers.litserve_server", "{port}")
BENTO = ("-m", "bentoml", "serve", "bench.peers.bentoml_service:Sentiment", "-p", "{port}")


@dataclass(frozen=True, slots=True)
class Server:
    """How to start one, and what is particular to it.

    Attributes:
        health: where it says that it is ready.
        lists: it takes lists only.
        learns: it remembers the load that it had: a lone caller gets a new one.
    """

    command: tuple[str, ...]
    health: str = "/healthcheck"
    env: dict[str, str] = field(default_factory=dict)
    lists: bool = False
    learns: bool = False


SERVERS = {
    "ours": Server(
        (PRODUCT, "-m", "project", "--host", "127.0.0.1", "--port", "{port}"), env=IMAGE_ENV
    ),
    "FastAPI + pipeline": Server((sys.executable, *UVICORN, "bench.peers.fastapi_pipeline:app")),
    "LitServe + pipeline": Server(LITSERVE),
    "LitServe + our session": Server((*LITSERVE, "--onnx"), env=IMAGE_ENV),
    "BentoML + pipeline": Server((sys.executable, *BENTO), "/readyz", lists=True, learns=True),
    "BentoML + our session": Server(
        (sys.executable, *BENTO),
        "/readyz",
        {**IMAGE_ENV, "PEER_ONNX": "1"},
        lists=True,
        learns=True,
    ),
    "null": Server((PRODUCT, *UVICORN, "bench.peers.null:app")),
}


@dataclass(frozen=True, slots=True)
class Running:
    """A started server.

    Attributes:
        seconds: from the start of its process until it was ready.
    """

    url: str
    process: psutil.Process
    seconds: float

    def family(self) -> list[psutil.Process]:
        """The process and all that it started."""
        return [self.process, *self.process.children(recursive=True)]

    def signal(self, number: signal.Signals) -> None:
        """To the whole family."""
        for each in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                each.send_signal(number)

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """A server that is not measured must not cost time: it runs in here only."""
        self.signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.signal(signal.SIGSTOP)

    def wait_until_idle(self) -> None:
        """Wait until the family uses no CPU: what it still computes is nobody's answer any more."""
        deadline = time.perf_counter() + IDLE_SECONDS
        before, spent = -1.0, self._cpu_seconds()
        while spent - before > IDLE_SHARE * LOOK_SECONDS and time.perf_counter() < deadline:
            time.sleep(LOOK_SECONDS)
            before, spent = spent, self._cpu_seconds()

    def _cpu_seconds(self) -> float:
        times = (each.cpu_times() for each in self.family())
        return sum(each.user + each.system for each in times)

    def peak_mb(self) -> float:
        """The most that was resident, of each of the family: what they share counts as often."""
        return sum(peak_mb(each.pid) for each in self.family())

    def memory_mb(self) -> float:
        """Proportional set size of the family: pages that two of them share count once."""
        return float(sum(each.memory_full_info().pss for each in self.family())) / 2**20


class Started:
    """Servers that run side by side, held still but for the one that is measured.

    A context: the servers end with it.

    Attributes:
        names: of them all, in the order in which they were started.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self._lives: dict[str, contextlib.ExitStack] = {}
        self._servers: dict[str, Running] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.push(self)
            for name in self.names:
                self.start(name)
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as all_of_them:
            for life in self._lives.values():
                all_of_them.push(life)

    def __getitem__(self, name: str) -> Running:
        return self._servers[name]

    def start(self, name: str) -> None:
        """Start it, in place of the one that runs."""
        if name in self._lives:
            self._lives.pop(name).close()
        self._lives[name] = contextlib.ExitStack()
        self._servers[name] = self._lives[name].enter_context(running(SERVERS[name]))
        with self._servers[name].awake():
            pass


@contextlib.contextmanager
def running(server: Server) -> Iterator[Running]:
    """Start ``server`` on a free port and wait until it is ready; ends it afterwards."""
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
    started = Running(url, psutil.Process(process.pid), 0.0)
    try:
        while not _healthy(url + server.health):
            if time.perf_counter() - start > START_SECONDS or process.poll() is not None:
                raise RuntimeError(f"{server.command} does not become ready")
            time.sleep(0.02)
        yield Running(url, started.process, time.perf_counter() - start)
    finally:
        _end(started, process)


def _end(started: Running, process: subprocess.Popen[bytes]) -> None:
    family = started.family() if process.poll() is None else []
    started.signal(signal.SIGCONT) if family else None
    process.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for each in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    process.wait()


def _healthy(url: str) -> bool:
    # Not httpx.get: it reads certificates at every call, 30 ms of CPU beside what is timed.
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    try:
        connection.request("GET", parts.path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
