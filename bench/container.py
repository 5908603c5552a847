"""What a request costs outside the model: the container with an engine that computes nothing.

    python -m bench.container

Needs ``wrk`` on the path. Prints, for each way to run it, the processor time of a request, which
a busy machine changes little, and the requests per second of the best turn.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import psutil
from starlette.types import ASGIApp

from project import logs
from project.app import create_app
from project.sentiment.options import OnLongText
from project.sentiment.prediction import EncodedText, Prediction, TokenIds
from project.settings import Settings

WAYS: dict[str, tuple[str, dict[str, str]]] = {
    "uvicorn alone": ("bench.peers.null:app", {}),
    "the container": ("bench.container:app", {"LOG_LEVEL": "error"}),
    "with logs": ("bench.container:app", {}),
    "with metrics": ("bench.container:app", {"LOG_LEVEL": "error", "ENABLE_METRICS": "true"}),
    "with both": ("bench.container:app", {"ENABLE_METRICS": "true"}),
}
POST = """\
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"input_text": "i like you very much"}'
"""


class NullClassifier:
    """Every text is one window, and every window half positive."""

    name, revision, backend, workers = "null", "0" * 12, "null", 1

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """One token each."""
        return [EncodedText(((0,),), 1) for _ in texts]

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """At once."""
        return [[0.5, 0.5]] * len(batch)

    def combine(self, text: EncodedText, rows: Sequence[Sequence[float]]) -> Prediction:
        """The same for every text."""
        return Prediction("POSITIVE", 0.5, {"NEGATIVE": 0.5, "POSITIVE": 0.5}, 1)


def app() -> ASGIApp:
    """The container that is measured."""
    settings = Settings()
    logs.configure(settings.log_level, settings.log_format)
    return create_app(settings, lambda _: NullClassifier())


def measure(target: str, env: dict[str, str], script: Path, seconds: int) -> tuple[float, float]:
    """Microseconds of processor time per request, and requests per second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    factory = ["--factory"] if target.startswith("bench.container") else []
    command = [sys.executable, "-m", "uvicorn", target, *factory, "--port", port]
    process = subprocess.Popen(  # noqa: S603
        [*command, "--no-access-log", "--log-level", "warning"],
        env={**os.environ, **env}, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/"
        while not _answers(url):
            time.sleep(0.02)
        _wrk(url, script, 1)
        server = psutil.Process(process.pid)
        before = server.cpu_times()
        requests, rate = _wrk(url, script, seconds)
        after = server.cpu_times()
        spent = after.user + after.system - before.user - before.system
        return spent / requests * 1e6, rate
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx.post(url, json="a").status_code == 200
    except httpx.TransportError:
        return False


def _wrk(url: str, script: Path, seconds: int) -> tuple[int, float]:
    done = subprocess.run(  # noqa: S603
        ["wrk", "-t1", "-c16", f"-d{seconds}s", "-s", str(script), url],  # noqa: S607
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (requests,) = re.findall(r"(\d+) requests in", done.stdout)
    (rate,) = re.findall(r"Requests/sec: +([\d.]+)", done.stdout)
    if "Non-2xx" in done.stdout:
        raise RuntimeError(done.stdout)
    return int(requests), float(rate)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "post.lua"
        script.write_text(POST, encoding="utf-8")
        turns = {way: [measure(*WAYS[way], script, options.seconds)] for way in WAYS}
        for _ in range(options.rounds - 1):
            for way in WAYS:
                turns[way].append(measure(*WAYS[way], script, options.seconds))
    print("| way | microseconds a request | requests/s |\n| --- | --- | --- |")
    for way, some in turns.items():
        print(
            f"| {way} | {min(cpu for cpu, _ in some):.0f} | {max(rate for _, rate in some):.0f} |"
        )


if __name__ == "__main__":
    main()
