"""SIGKILL at random moments under load: every acknowledged request completes, with its own result.

CRASH_ROUNDS=20 python -m pytest tests/e2e/test_crashes.py  runs the long form.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.helpers import RuntimeProcess, poll, wait_until

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "3"))

# Answers with the body that it got, so that a result that belongs to another request shows.
CONTAINER = """
import http.server, json, os, sys, time
open("container.pid", "w").write(str(os.getpid()))
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.answer(b"{}")
    def do_POST(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        time.sleep(0.005)
        self.answer(body)
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


class Load:
    """Submits numbered requests until told to stop; remembers those that were acknowledged."""

    def __init__(self, url: str) -> None:
        self.acknowledged: dict[str, int] = {}
        self._url = url
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        number = thread * 1_000_000
        with httpx.Client() as client:
            while not self._stop.is_set():
                number += 1
                try:
                    answer = client.post(self._url, json={"number": number})
                    self.acknowledged[answer.raise_for_status().json()["id"]] = number
                except (httpx.HTTPError, json.JSONDecodeError):
                    continue  # not acknowledged: nothing was promised


def kill_container(runtime: RuntimeProcess, tmp_path: Path) -> None:
    """The container alone; the runtime starts another."""

    def killed() -> bool:
        try:
            os.kill(int((tmp_path / "container.pid").read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):  # the next one has not started yet
            return False
        return True

    wait_until(killed)


def kill_runtime(runtime: RuntimeProcess, tmp_path: Path) -> None:
    """Gateway and dequeuer are one process; the container dies with it."""
    runtime.kill()


@pytest.mark.timeout(60 + 30 * ROUNDS)
@pytest.mark.parametrize("kill", [kill_container, kill_runtime])
def test_killed_at_random_moments(
    start_runtime: Callable[..., RuntimeProcess],
    tmp_path: Path,
    kill: Callable[[RuntimeProcess, Path], None],
) -> None:
    """Before compute, during, after the answer, before the commit: whatever the moment hits."""
    (tmp_path / "container.py").write_text(CONTAINER, encoding="utf-8")
    chance = random.Random(ROUNDS)  # noqa: S311  (no secret)
    acknowledged: dict[str, int] = {}
    command = ("--command", f"{sys.executable} container.py $(CORTEX_PORT)")
    runtime = start_runtime(*command)
    for _ in range(ROUNDS):
        load = Load(runtime.url())
        moment = chance.randrange(1, 100)
        wait_until(lambda: len(load.acknowledged) >= moment)  # noqa: B023  (awaited here)
        kill(runtime, tmp_path)
        load.stop()
        acknowledged |= load.acknowledged
        if runtime.process.poll() is not None:
            runtime = start_runtime(*command)

    url = runtime.url()
    for request_id, number in acknowledged.items():
        answer = wait_until(lambda name=request_id: poll(url, name))  # type: ignore[misc]
        assert (answer["status"], answer["result"]) == ("completed", {"number": number})
    assert len(acknowledged) >= ROUNDS
