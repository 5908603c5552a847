"""Ends what an earlier run has left behind: a runtime that is killed cannot stop its container.

The container's first process dies with the runtime. Its children may live on and hold the port.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

logger = logging.getLogger(__name__)

MARK = "ASYNCAPI_STORAGE"
"""In the environment of a container, which all of its children inherit: whose container it is."""

PASSES = 10
"""Over all processes, for one may have been made while the others were looked at."""

END_MILLISECONDS = 5000


def mark(storage: Path) -> Mapping[str, str]:
    """The environment of containers that run for ``storage``."""
    return {MARK: str(storage.resolve())}


def end_leftovers(storage: Path) -> None:
    """End all processes of containers for ``storage``, which the caller owns: no other uses it.

    On systems without Linux's ``/proc``, there is nothing to be found.
    """
    wanted = f"{MARK}={mark(storage)[MARK]}".encode()
    for _ in range(PASSES):
        ended = [pid for pid in _others() if _end_if_marked(pid, wanted)]
        if not ended:
            return


def _others() -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if pid != os.getpid()]


def _end_if_marked(pid: int, wanted: bytes) -> bool:
    with contextlib.suppress(OSError), _handle(pid) as handle:  # gone, or someone else's
        if wanted not in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            return False
        logger.warning("process %d is left from a container of an earlier run; killing it", pid)
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(END_MILLISECONDS)
        return True
    return False


@contextlib.contextmanager
def _handle(pid: int) -> Iterator[int]:
    """A process, even if another has its number later."""
    handle = os.pidfd_open(pid)
    try:
        yield handle
    finally:
        os.close(handle)
