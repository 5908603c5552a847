"""uvicorn, but SIGTERM does not close the door at once."""

from __future__ import annotations

import contextlib
import logging
import os
import signal

import uvicorn

logger = logging.getLogger(__name__)

GRACE_SECONDS = 50
"""For what is in flight after SIGTERM: a Cortex pod is killed after 60 s, ``pre_stop`` included."""

TICKS_PER_SECOND = 10
"""How often uvicorn asks whether it should stop."""

KEEP_ALIVE_SECONDS = 120
"""Longer than Cortex's dequeuer keeps an idle connection (90 s): it must never find one closed."""


class Server(uvicorn.Server):
    """Goes on taking requests for a moment after SIGTERM.

    Cortex signals the dequeuer and the container at the same moment. A connection that is refused
    or closed while the dequeuer lives fails its request for good; one that the dequeuer drops when
    it dies is delivered again. So the container must be the second to go.
    """

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds
        self._ticks = 0

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; returns whether the server should stop."""
        if not await super().on_tick(counter):
            return False
        if not self._ticks and signal.SIGTERM in self._captured_signals:
            logger.info("told to stop; requests are taken for another %g s", self._drain_seconds)
        self._ticks += 1
        drained = self._ticks > self._drain_seconds * TICKS_PER_SECOND
        return drained or self.force_exit or signal.SIGINT in self._captured_signals


def let_inference_run() -> None:
    """Let a request that comes in not interrupt a thread that computes; call it before any starts.

    A core that is idle is taken at once. A policy that somebody chose is left as it is. Source:
    sched(7), ``SCHED_BATCH``, which only Linux has.
    """
    with contextlib.suppress(AttributeError, OSError):  # another system, or a sandbox
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
