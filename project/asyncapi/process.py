"""The container as a child process: started, restarted when it dies, stopped with grace."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence

from project.asyncapi.checks import Target
from project.asyncapi.container_spec import Hook
from project.asyncapi.waiting import first_of

logger = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""Between SIGTERM and SIGKILL: a Cortex pod's termination grace period."""

BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Before each restart in a row; the last one stays."""

STABLE_SECONDS = 30.0
"""A process that lived this long starts the back-off anew."""


PR_SET_PDEATHSIG = 1  # prctl(2)
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None  # loaded before any fork


def _is_usual() -> bool:
    with contextlib.suppress(AttributeError, OSError):  # another system, or a sandbox
        return os.sched_getscheduler(0) == os.SCHED_OTHER
    return False


USUAL = _is_usual()
"""Whether this process was started under the usual policy: another one was chosen, and stays."""


class PortInUse(RuntimeError):
    """Another process listens where the container should."""


class ContainerProcess:
    """A container, run as ``command`` with ``env`` added to this process's environment.

    Args:
        pre_stop: done before the container is told to stop, within its grace period.
        target: where the container is, for ``pre_stop``.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        pre_stop: Hook | None = None,
        target: Target | None = None,
    ) -> None:
        self._command = [_expand(word, env) for word in command]
        self._env = {**os.environ, **env}
        self._pre_stop = pre_stop
        self._target = target
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._ending = asyncio.Lock()
        self._generation = 0

    @property
    def generation(self) -> int | None:
        """Which process it is, counted from 1; None while none runs."""
        return self._generation if self._alive() is not None else None

    async def run(self) -> None:
        """Keep the process alive until :meth:`stop`; returns when it has ended.

        Raises:
            OSError: it cannot be started, not even once.
        """
        restarts = 0
        while not self._stopping.is_set():
            started = asyncio.get_running_loop().time()
            how = await self._run_once()
            if self._stopping.is_set():
                return
            lived = asyncio.get_running_loop().time() - started
            restarts = 0 if lived > STABLE_SECONDS else restarts
            pause = BACK_OFF_SECONDS[min(restarts, len(BACK_OFF_SECONDS) - 1)]
            logger.error("the container %s; restarting it in %s s", how, pause)
            restarts += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def stop(self) -> None:
        """End the process for good: see :meth:`restart`."""
        self._stopping.set()
        await self.restart()

    async def restart(self) -> None:
        """Let the process do its ``pre_stop``, ask it to end, and kill it after its grace period.

        :meth:`run` starts the next one.
        """
        async with self._ending:  # one pre_stop, though a stop may come during a restart
            process = self._alive()
            if process is None:
                return
            try:
                async with asyncio.timeout(GRACE_SECONDS):
                    await first_of(self._run_pre_stop(), process.wait())
                    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
                        process.terminate()
                    await process.wait()
            except TimeoutError:
                logger.warning("the container did not stop in %s s; killing it", GRACE_SECONDS)
                self.kill()
                await process.wait()

    def kill(self) -> None:
        """End the process and its children at once."""
        process = self._alive()
        if process is not None:
            _kill_group(process.pid)

    def _alive(self) -> asyncio.subprocess.Process | None:
        process = self._process
        return process if process is not None and process.returncode is None else None

    async def _run_pre_stop(self) -> None:
        if self._pre_stop is None or self._target is None:
            return
        if not await self._target.passes(self._pre_stop, GRACE_SECONDS):
            logger.warning("the container's pre_stop failed")

    async def _run_once(self) -> str:
        """How it ended."""
        try:
            process = await self._start()
        except OSError as error:
            if not self._generation:
                raise
            return f"could not be started: {error}"
        if self._stopping.is_set():  # told to stop while the process was being made
            process.terminate()
        code = await process.wait()
        _kill_group(process.pid)  # its children would hold the port
        return f"exited with {code}"

    async def _start(self) -> asyncio.subprocess.Process:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            env=self._env,
            start_new_session=True,  # Ctrl-C is for the runtime, which drains before it stops this
            preexec_fn=_begin,
        )
        self._generation += 1
        return self._process


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # nobody is left
        os.killpg(pid, signal.SIGKILL)


def check_port(port: int) -> None:
    """Make sure that the container, not a stranger, will answer on ``port``.

    Raises:
        PortInUse: something listens there already.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortInUse(
                f"port {port} is in use; stop what listens there, or use --container-url"
            ) from error


def _expand(word: str, env: Mapping[str, str]) -> str:
    """Kubernetes' ``$(NAME)`` in a command or its arguments."""
    for name, value in env.items():
        word = word.replace(f"$({name})", value)
    return word


def leave_the_cores() -> None:
    """Let what wakes the runtime not interrupt the model: it is next, and several things at once.

    A core that is idle is taken at once. Of the threads that are started later, too. A policy that
    somebody chose is left as it is. Source: sched(7), ``SCHED_BATCH``, which only Linux has.
    """
    _schedule("SCHED_BATCH")


def _begin() -> None:
    """Ask Linux for SIGKILL when the runtime dies, for a killed runtime cannot stop its child.

    And undo :func:`leave_the_cores`: the container is scheduled as it is in a pod.
    """
    if LIBC is not None:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _schedule("SCHED_OTHER")


def _schedule(policy: str) -> None:
    if USUAL:
        with contextlib.suppress(OSError):  # a sandbox
            os.sched_setscheduler(0, getattr(os, policy), os.sched_param(0))
