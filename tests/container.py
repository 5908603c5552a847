"""The container as a process, with the real model or a fake one.

python -m tests.container --port 8000  serves the fake; see ``main``.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from project.__main__ import main as serve
from project.engine import load_classifier
from project.settings import Settings
from tests.helpers import DEADLINE, ROOT, FakeClassifier, free_port, wait_until


class ContainerProcess:
    """``python -m project`` as it runs on a cluster.

    Args:
        folder: where its output goes.
        module: what to run; ``tests.container`` has a model that does as it is told.
        port: None: a free one.
        inside: a command that runs the command that follows it.
    """

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        module: str = "project",
        port: int | None = None,
        inside: Sequence[str] = (),
    ) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._output = folder / "container.txt"
        with self._output.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [
                    *inside,
                    sys.executable,
                    "-m",
                    module,
                    "--host",
                    "127.0.0.1",
                    "--port",
                    str(self.port),
                ],
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def text(self) -> str:
        """What it has printed."""
        return self._output.read_text(encoding="utf-8")

    def lines(self) -> list[dict[str, object]]:
        """Its log; every line must be a JSON object."""
        return [json.loads(line) for line in self.text().splitlines()]

    def health(self) -> httpx.Response | None:
        """What it says of itself; None while the port is not open."""
        try:
            return httpx.get(f"{self.url}/healthcheck")
        except httpx.TransportError:
            return None

    def wait_ready(self) -> str:
        """Its URL, once it is ready."""

        def ready() -> bool:
            health = self.health()
            assert self.process.poll() is None, self.text()
            return health is not None and health.status_code == 200

        wait_until(ready)
        return self.url

    def terminate(self) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it whatever its state."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)


class ObedientClassifier(FakeClassifier):
    """Does what a text says: ``sleep 0.5``, ``hang``, or ``die``, which ends its thread."""

    def infer(self, batch: Sequence[Sequence[int]], *, alone: bool = False) -> list[list[float]]:
        """As before, after doing so."""
        for ids in batch:
            word, _, argument = "".join(map(chr, ids)).partition(" ")
            if word == "sleep":
                time.sleep(float(argument))  # what a batch takes
            if word == "hang":
                threading.Event().wait()
            if word == "die":
                sys.exit("told to")
        return super().infer(batch, alone=alone)


def load(settings: Settings) -> ObedientClassifier:
    """Does what ``MODEL`` says: ``endless`` loads the shipped model again and again."""
    while settings.model == "endless":
        load_classifier(settings.model_copy(update={"model": None}))
        logging.getLogger(__name__).info("loaded, and not enough")
    return ObedientClassifier()


def main() -> int:
    """``python -m project`` with the obedient model."""
    return serve(load=load)


if __name__ == "__main__":
    sys.exit(main())
