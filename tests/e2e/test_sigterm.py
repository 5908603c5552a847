"""A rolling update under load: dequeuer and container are signalled at the same moment.

SIGTERM_ROUNDS=20 python -m pytest tests/e2e/test_sigterm.py  runs the long form, in which also the
runtime that retries and the one that finishes what it sends take part.

Cortex's dequeuer exits on SIGTERM within 10 ms and drops its connections, which here is SIGKILL;
SIGTERM lets the runtime finish what it sends. Each must find the container alive until it is gone,
also where the container is told first.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.container import ContainerProcess
from tests.e2e.load import Load
from tests.helpers import DEADLINE, RuntimeProcess, free_port, poll, wait_until

ROUNDS = int(os.environ.get("SIGTERM_ROUNDS", "2"))
MODES = [("faithful", signal.SIGKILL, "container first"), ("faithful", signal.SIGKILL, "at once"),
         ("faithful", signal.SIGTERM, "at once"), ("default", signal.SIGKILL, "at once"),
         ("default", signal.SIGTERM, "at once")]  # fmt: skip
DRAIN = {"DRAIN_SECONDS": os.environ.get("DRAIN_SECONDS", "2")}  # 0: the first mode fails
LEASE_SECONDS = 45.0  # what was in flight is delivered again when its lease of 30 s has run out
TOLD, ANSWERED = "told to stop", '"path":"/","status":200'


def body(number: int) -> object:
    """A text that is computed for up to 60 ms, and an id to know its result by."""
    return {"input_text": f"sleep {number % 7 / 100}", "id": str(number)}


@pytest.mark.timeout(120 + 60 * ROUNDS)
@pytest.mark.parametrize(("mode", "dequeuer_signal", "order"), MODES[: 5 if ROUNDS > 2 else 1])
def test_rolling_update_loses_nothing(
    start_runtime: Callable[..., RuntimeProcess],
    tmp_path: Path,
    mode: str,
    dequeuer_signal: signal.Signals,
    order: str,
) -> None:
    """Every accepted request completes, with its own result, also where Cortex would lose one."""
    port = free_port()
    options = ["--container-url", f"http://127.0.0.1:{port}"]
    options += ["--faithful"] if mode == "faithful" else []
    accepted: dict[str, int] = {}
    for number in range(ROUNDS):
        container = ContainerProcess(tmp_path, DRAIN, "tests.container", port)
        runtime = start_runtime(*options)
        try:
            load = Load(runtime.url(), body, number * 1000)
            wait_until(lambda: len(load.acknowledged) > 20 + 7 * number)  # noqa: B023
            container.process.send_signal(signal.SIGTERM)
            if order == "container first":
                wait_until(lambda: container.text().count(TOLD) == 1)  # noqa: B023
                answered = container.text().count(ANSWERED)
                wait_until(lambda: container.text().count(ANSWERED) > answered + 10)  # noqa: B023
            runtime.process.send_signal(dequeuer_signal)
            code = container.process.wait(DEADLINE)
            load.stop()
            accepted |= load.acknowledged
            assert code in {0, -signal.SIGTERM}
            assert runtime.process.wait(DEADLINE) in {0, -signal.SIGKILL}
        finally:
            container.close()

    container = ContainerProcess(tmp_path, None, "tests.container", port)
    try:
        url = start_runtime(*options).url()
        for request_id, number_sent in accepted.items():
            answer = wait_until(lambda name=request_id: poll(url, name), seconds=LEASE_SECONDS)  # type: ignore[misc]
            assert answer["status"] == "completed", answer
            assert answer["result"]["id"] == str(number_sent)
    finally:
        container.close()
    assert len(accepted) > 20 * ROUNDS
