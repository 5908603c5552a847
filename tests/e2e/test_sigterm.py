"""A rolling update under load: dequeuer and container are signalled at the same moment.

SIGTERM_ROUNDS=20 python -m pytest tests/e2e/test_sigterm.py  runs the long form, in which also the
runtime that retries and the one that finishes what it sends take part.

Cortex's dequeuer exits on SIGTERM within 10 ms and drops its connections, which here is SIGKILL;
SIGTERM lets the runtime finish what it sends. Each must find the container alive until it is gone.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.container import ContainerProcess
from tests.helpers import DEADLINE, RuntimeProcess, free_port, poll, wait_until

ROUNDS = int(os.environ.get("SIGTERM_ROUNDS", "2"))
MODES = [("faithful", signal.SIGKILL), ("faithful", signal.SIGTERM),
         ("default", signal.SIGKILL), ("default", signal.SIGTERM)]  # fmt: skip
SENDERS = 4
LEASE_SECONDS = 45.0  # what was in flight is delivered again when its lease of 30 s has run out


class Load:
    """Submits numbered requests until told to stop; remembers those that were acknowledged."""

    def __init__(self, url: str, first: int) -> None:
        self.acknowledged: dict[str, str] = {}
        self._url = url
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(first + number,)) for number in range(SENDERS)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with httpx.Client() as client:
            while not self._stop.is_set():
                number += SENDERS
                body = {"input_text": f"sleep {number % 7 / 100}", "id": str(number)}
                try:
                    answer = client.post(self._url, json=body).raise_for_status().json()
                except (httpx.HTTPError, json.JSONDecodeError):
                    continue  # not acknowledged: nothing was promised
                self.acknowledged[answer["id"]] = str(number)


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize(("mode", "dequeuer_signal"), MODES[: 4 if ROUNDS > 2 else 1])
def test_rolling_update_loses_nothing(
    start_runtime: Callable[..., RuntimeProcess],
    tmp_path: Path,
    mode: str,
    dequeuer_signal: signal.Signals,
) -> None:
    """Every accepted request completes, with its own result, also where Cortex would lose one."""
    port = free_port()
    options = ["--container-url", f"http://127.0.0.1:{port}"]
    options += ["--faithful"] if mode == "faithful" else []
    accepted: dict[str, str] = {}
    for number in range(ROUNDS):
        container = ContainerProcess(tmp_path, module="tests.container", port=port)
        runtime = start_runtime(*options)
        try:
            load = Load(runtime.url(), number * 1_000_000)
            wait_until(lambda: len(load.acknowledged) > 20 + 7 * number)  # noqa: B023
            signals = [(container.process, signal.SIGTERM), (runtime.process, dequeuer_signal)]
            for process, its_signal in signals if number % 2 else reversed(signals):
                process.send_signal(its_signal)
            code = container.process.wait(DEADLINE)
            load.stop()
            accepted |= load.acknowledged
            assert code in {0, -signal.SIGTERM}
            assert runtime.process.wait(DEADLINE) in {0, -signal.SIGKILL}
        finally:
            container.close()

    container = ContainerProcess(tmp_path, module="tests.container", port=port)
    try:
        url = start_runtime(*options).url()
        for request_id, number_sent in accepted.items():
            answer = wait_until(lambda name=request_id: poll(url, name), seconds=LEASE_SECONDS)  # type: ignore[misc]
            assert answer["status"] == "completed", answer
            assert answer["result"]["id"] == number_sent
    finally:
        container.close()
    assert len(accepted) > 20 * ROUNDS
