"""SIGKILL of each process, as the kernel's out-of-memory killer would, and a container for it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from tests.helpers import RuntimeProcess, wait_until

Kill = Callable[[RuntimeProcess], None]
ECHO = ("--command", f"{sys.executable} -S -m tests.e2e.echo $(CORTEX_PORT)")


def kill_runtime(runtime: RuntimeProcess) -> None:
    """Gateway and dequeuer are one process; the container dies with it."""
    runtime.kill()


def kill_container(runtime: RuntimeProcess) -> None:
    """The container alone; the runtime starts another."""

    def killed() -> bool:
        try:
            os.kill(int((runtime.cwd / "container.pid").read_text()), signal.SIGKILL)
        except (ProcessLookupError, ValueError):  # the next one has not started yet
            return False
        return True

    wait_until(killed)


def kill_all(runtime: RuntimeProcess) -> None:
    """The container first."""
    kill_container(runtime)
    kill_runtime(runtime)
