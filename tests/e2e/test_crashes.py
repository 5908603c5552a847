"""SIGKILL at random moments under load: every acknowledged request completes, with its own result.

CRASH_ROUNDS=20 python -m pytest tests/e2e/test_crashes.py  runs the long form.
"""

from __future__ import annotations

import json
import os
import random
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.e2e.kills import ECHO, Kill, kill_all, kill_container, kill_runtime
from tests.helpers import PLAIN, RuntimeProcess, poll, wait_until

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))


class Load:
    """Submits numbered requests until told to stop; remembers those that were acknowledged.

    No more than 100 a thread, for a container that is down for seconds would not catch up.
    """

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
        with httpx.Client(verify=PLAIN) as client:
            for number in range(thread * 100, (thread + 1) * 100):
                if self._stop.is_set():
                    return
                try:
                    answer = client.post(self._url, json={"number": number})
                    self.acknowledged[answer.raise_for_status().json()["id"]] = number
                except (httpx.HTTPError, json.JSONDecodeError):
                    continue  # not acknowledged: nothing was promised


def seen(runtime: RuntimeProcess) -> int:
    """How many requests the container got so far."""
    path = runtime.cwd / "seen"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.timeout(60 + 30 * ROUNDS)
@pytest.mark.parametrize("kill", [kill_container, kill_runtime, kill_all])
def test_killed_at_random_moments(
    start_runtime: Callable[..., RuntimeProcess],
    kill: Kill,
) -> None:
    """Before compute, during, after the answer, before the commit: whatever the moment hits."""
    chance = random.Random(ROUNDS)  # noqa: S311  (no secret)
    acknowledged: dict[str, int] = {}
    runtime = start_runtime(*ECHO)
    for _ in range(ROUNDS):
        load = Load(runtime.url())
        # More than are in the container at once: nothing is hit by one kill after the other, for
        # what breaks three containers is held to be the cause, and fails.
        moment = seen(runtime) + chance.randrange(9, 100)
        wait_until(lambda: seen(runtime) >= moment)  # noqa: B023  (awaited here)
        kill(runtime)
        load.stop()
        acknowledged |= load.acknowledged
        if runtime.process.poll() is not None:
            runtime = start_runtime(*ECHO)

    url = runtime.url()
    for request_id, number in acknowledged.items():
        answer = wait_until(lambda name=request_id: poll(url, name))  # type: ignore[misc]
        assert (answer["status"], answer["result"]) == ("completed", {"number": number})
    assert len(acknowledged) >= ROUNDS
