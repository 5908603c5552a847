"""SIGKILL at random moments under load: every acknowledged request completes, with its own result.

CRASH_ROUNDS=20 python -m pytest tests/e2e/test_crashes.py  runs the long form.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from tests.e2e.kills import ECHO, Kill, kill_all, kill_container, kill_runtime
from tests.e2e.load import Load
from tests.helpers import RuntimeProcess, poll, wait_until

ROUNDS = int(os.environ.get("CRASH_ROUNDS", "2"))


def seen(runtime: RuntimeProcess) -> int:
    """How many requests the container got so far."""
    path = runtime.cwd / "seen"
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.usefixtures("_uncovered")
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
