"""A real Prometheus for tests, where Debian's package (or any other) is installed."""

from __future__ import annotations

import math
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.helpers import DEADLINE, free_port, wait_until

TOOLS = ("prometheus", "promtool")


def missing(which: Callable[[str], str | None] = shutil.which) -> str | None:
    """Why tests with a real Prometheus cannot run here; None if they can."""
    absent = [tool for tool in TOOLS if which(tool) is None]
    return f"not on the path: {', '.join(absent)} (apt-get install prometheus)" if absent else None


needs_prometheus = pytest.mark.skipif(missing() is not None, reason=missing() or "")


class Prometheus:
    """``prometheus`` on a free port.

    Args:
        config: its configuration file.
        folder: for its data and its log.
    """

    def __init__(self, config: Path, folder: Path) -> None:
        port = free_port()
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        self._log = folder / "prometheus.log"
        with self._log.open("w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [
                    "prometheus",
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        wait_until(self._ready)

    def _ready(self) -> bool:
        assert self._process.poll() is None, self._log.read_text(encoding="utf-8")
        try:
            return self._http.get("/-/ready").status_code == 200
        except httpx.ConnectError:
            return False

    def finite(self, expression: str) -> list[float]:
        """The values that ``expression`` has now, less those that are no number."""
        answer = self._http.get("/api/v1/query", params={"query": expression}).json()
        assert answer["status"] == "success", answer
        values = [float(each["value"][1]) for each in answer["data"]["result"]]
        return [value for value in values if math.isfinite(value)]

    def rules(self) -> list[dict[str, Any]]:
        """Every rule that is loaded."""
        groups = self._http.get("/api/v1/rules").json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]

    def close(self) -> None:
        """End it."""
        self._http.close()
        self._process.terminate()
        self._process.wait(DEADLINE)
