"""The probes: of readiness, without which nothing is pulled, and of liveness."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence

from project.asyncapi.checks import Target
from project.asyncapi.container_spec import Probe
from project.asyncapi.waiting import Signal

logger = logging.getLogger(__name__)

UNREADY_PERIOD = 0.25
"""Seconds between probes while the container is not ready: the kubelet, too, probes such a
container more often than ``period_seconds``, so that nobody waits for a period to end."""


class _Health:
    """What a probe's results amount to, by its thresholds."""

    def __init__(self, probe: Probe, healthy: bool) -> None:
        self._probe = probe
        self._successes = self._failures = 0
        self.healthy = healthy

    def count(self, passed: bool) -> None:
        self._successes = self._successes + 1 if passed else 0
        self._failures = 0 if passed else self._failures + 1
        if self._successes >= self._probe.success_threshold:
            self.healthy = True
        elif self._failures >= self._probe.failure_threshold:
            self.healthy = False

    def reset(self, healthy: bool) -> None:
        self._successes = self._failures = 0
        self.healthy = healthy


class Readiness:
    """Whether the container passes all of its readiness probes.

    Args:
        changed: sent when the readiness changes.
    """

    def __init__(self, probes: Sequence[Probe], target: Target, changed: Signal) -> None:
        self._target = target
        self._changed = changed
        self._probes = [(probe, _Health(probe, healthy=False)) for probe in probes]
        self._probe_now = Signal()
        self.ready = False

    def lost(self) -> None:
        """A connection to the container broke: not ready until every probe passes again."""
        for _, health in self._probes:
            health.reset(healthy=False)
        self._update()
        self._probe_now.send()

    async def run(self) -> None:
        """Probe until cancelled."""
        async with asyncio.TaskGroup() as group:
            for probe, health in self._probes:
                group.create_task(self._run(probe, health))

    async def _run(self, probe: Probe, health: _Health) -> None:
        await asyncio.sleep(probe.initial_delay_seconds)
        while True:
            probe_now = self._probe_now.listen()
            passed = await self._target.passes(probe, probe.timeout_seconds)
            if probe_now.is_set():  # it was asked before the connection broke
                continue
            health.count(passed)
            self._update()
            period = probe.period_seconds
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    probe_now.wait(), period if health.healthy else min(period, UNREADY_PERIOD)
                )

    def _update(self) -> None:
        ready = all(health.healthy for _, health in self._probes)
        if ready != self.ready:
            self.ready = ready
            text = "ready" if ready else "not ready: nothing is pulled"
            logger.info("the container is %s", text)
            self._changed.send()


async def watch_liveness(
    probe: Probe,
    target: Target,
    generation: Callable[[], int | None],
    restart: Callable[[], Awaitable[None]],
) -> None:
    """Restart a container that fails ``probe``, until cancelled.

    Args:
        generation: which process it is, None while none runs; a new one has a clean record.
    """
    health = _Health(probe, healthy=True)
    while True:
        watched = generation()
        health.reset(healthy=True)
        await asyncio.sleep(probe.initial_delay_seconds)
        while health.healthy and generation() == watched:
            await asyncio.sleep(probe.period_seconds)
            health.count(await target.passes(probe, probe.timeout_seconds))
        if watched is not None and generation() == watched:
            logger.error("the container fails its liveness probe; restarting it")
            await restart()
