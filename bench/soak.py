"""Ten minutes at saturation with a tenth of the requests bad: does anything grow, hang or fail?

    python -m bench.soak sst2/dev.tsv --seconds 600

Needs ``wrk`` on the path. The container runs as it is shipped, with metrics and logs. Every second
request says that it comes from the queue. Prints the resident memory every 30 seconds, and at the
end what came of the requests; exit code 1 if one was not answered or failed, if the 99th percentile
of /healthcheck was over 100 ms, or if the memory grew by more than 5 % after the first minute.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import httpx
import psutil

from bench.servers import SERVERS, running
from project.sentiment.data import read_examples

CONNECTIONS = 32
PERIOD_SECONDS = 30
HEALTH_PERIOD_SECONDS = 0.05
HEALTH_LIMIT_SECONDS = 0.1
GROWTH_LIMIT = 0.05  # of the memory after the first minute
CONTAINER = replace(
    SERVERS["ours"],
    env={**SERVERS["ours"].env, "ENABLE_METRICS": "true", "MAX_BODY_BYTES": "1000000"},
)
JSON = "application/json"
BAD = [
    (JSON, '{"input_text": "'),
    (JSON, '{"input_text": ""}'),
    (JSON, '{"input_text": 3}'),
    (JSON, '"\\ud800"'),
    (JSON, "[" * 5000),
    (JSON, json.dumps(["a"] * 1001)),
    (JSON, json.dumps({"input_text": "x" * 100_001})),
    (JSON, json.dumps({"input_text": "good " * 600, "on_long": "reject"})),
    (JSON, json.dumps({"input_text": ["a", "", 3], "top_k": 0})),
    ("application/x-www-form-urlencoded", "input_text=%ff"),
    ("application/xml", "<text>i like you</text>"),
    ("multipart/form-data", "no boundary"),
    (JSON, json.dumps("y" * 1_100_000)),  # over MAX_BODY_BYTES, as it is set above
]
SCRIPT = """\
local requests, position, threads = {}, 0, {}
failed = 0

function setup(thread) threads[#threads + 1] = thread end

function init(args)
  for line in io.lines(args[1]) do
    local kind, body = line:match("^(.-)\\t(.*)$")
    local headers = { ["Content-Type"] = kind }
    if #requests % 2 == 1 then headers["X-Cortex-Request-ID"] = "soak-" .. #requests end
    requests[#requests + 1] = wrk.format("POST", "/", headers, body)
  end
end

function request()
  position = position % #requests + 1
  return requests[position]
end

function response(status)
  if status >= 500 then failed = failed + 1 end
end

function done(summary, latency)
  local errors, five = summary.errors, 0
  for _, thread in ipairs(threads) do five = five + thread:get("failed") end
  io.write(string.format(
    'JSON {"requests": %d, "unanswered": %d, "refused": %d, "failed": %d,' ..
    ' "p50_ms": %f, "p99_ms": %f}\\n',
    summary.requests, errors.connect + errors.read + errors.write + errors.timeout,
    errors.status - five, five, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""


def write_requests(texts: Sequence[str], path: Path) -> None:
    """A line of Content-Type and body for each request; every tenth text is long or bad."""
    chance = random.Random(0)  # noqa: S311
    lines = []
    for number, text in enumerate(texts):
        if number % 10 == 0:
            lines.append("\t".join(BAD[number // 10 % len(BAD)]))
        else:
            long = " ".join(chance.choices(texts, k=12)) if number % 10 == 5 else text
            lines.append(f"{JSON}\t{json.dumps({'input_text': long})}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Watch(threading.Thread):
    """Keeps how long /healthcheck takes, and how much memory the process has.

    Attributes:
        seconds: of every answer; infinity for one that was no 200.
        memory: in MB, every 30 seconds.
    """

    def __init__(self, url: str, process: psutil.Process) -> None:
        super().__init__()
        self.seconds: list[float] = []
        self.memory: list[float] = []
        self._url, self._process = url, process
        self._over = threading.Event()

    def run(self) -> None:
        """Until :meth:`stop`."""
        started = time.monotonic()
        with httpx.Client(timeout=60) as client:
            while not self._over.wait(HEALTH_PERIOD_SECONDS):
                before = time.monotonic()
                status = client.get(f"{self._url}/healthcheck").status_code
                took = time.monotonic() - before
                self.seconds.append(took if status == 200 else float("inf"))
                if time.monotonic() - started > PERIOD_SECONDS * (len(self.memory) + 1):
                    self.memory.append(self._process.memory_info().rss / 2**20)
                    print(f"{PERIOD_SECONDS * len(self.memory):>5} s {self.memory[-1]:.0f} MB",
                          flush=True)  # fmt: skip

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        self.join()

    def p99(self) -> float:
        """Of /healthcheck, in seconds."""
        return sorted(self.seconds)[int(0.99 * len(self.seconds))]

    def growth(self) -> float:
        """Of the memory, from one minute to the end, as a share."""
        first = self.memory[min(1, len(self.memory) - 1)]
        return self.memory[-1] / first - 1


def soak(file: Path, seconds: int) -> int:
    """Run it; returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, requests = folder / "soak.lua", folder / "requests.tsv"
        script.write_text(SCRIPT, encoding="utf-8")
        write_requests([example.text for example in read_examples(file)], requests)
        with running(CONTAINER) as server:
            watch = Watch(server.url, server.process)
            watch.start()
            done = subprocess.run(  # noqa: S603
                ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "60s",  # noqa: S607
                 "-s", str(script), server.url, "--", str(requests)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            watch.stop()
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    figures = json.loads(line.removeprefix("JSON "))
    print(
        f"{figures['requests']} requests, {figures['refused']} refused, {figures['unanswered']}"
        f" unanswered, {figures['failed']} failed; p50 {figures['p50_ms']:.0f} ms, p99"
        f" {figures['p99_ms']:.0f} ms; /healthcheck p99 {watch.p99() * 1e3:.1f} ms; memory"
        f" {watch.growth():+.1%} after the first minute"
    )
    bad = figures["unanswered"] + figures["failed"]
    return int(bool(bad) or watch.p99() > HEALTH_LIMIT_SECONDS or watch.growth() > GROWTH_LIMIT)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    if options.seconds <= 2 * PERIOD_SECONDS:
        parser.error(f"--seconds must be more than {2 * PERIOD_SECONDS}: growth is seen later")
    return soak(options.file, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
