"""Ten minutes at saturation with a tenth of the requests bad: does anything grow, hang or fail?

    python -m bench.soak sst2/dev.tsv --seconds 600

Needs ``wrk`` on the path. The container runs as it is shipped, with metrics and logs. Every second
request says that it comes from the queue. Prints the resident memory every 30 seconds, and at the
end what came of the requests; exit code 1 if one was not answered or failed, if the 99th percentile
of /healthcheck was over 100 ms, or if the memory grew by more than 5 % from the second minute to
the last.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import psutil

from bench.load import HealthWatch, growth, percentile
from bench.servers import SERVERS, running
from bench.targets import HEALTH_MS
from project.sentiment.data import read_examples

CONNECTIONS = 32
PERIOD_SECONDS, SHOWN_SECONDS = 2, 30
SHORTEST_SECONDS = 200
GROWTH_LIMIT = 0.05  # of the memory in the second minute
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


class MemoryWatch(threading.Thread):
    """Keeps how much memory a process has.

    Attributes:
        megabytes: resident, every ``PERIOD_SECONDS``.
    """

    def __init__(self, process: psutil.Process) -> None:
        super().__init__(daemon=True)
        self.megabytes: list[float] = []
        self._process = process
        self._over = threading.Event()

    def run(self) -> None:
        """Until :meth:`stop`."""
        while not self._over.wait(PERIOD_SECONDS):
            self.megabytes.append(self._process.memory_info().rss / 2**20)
            passed = PERIOD_SECONDS * len(self.megabytes)
            if passed % SHOWN_SECONDS == 0:
                print(f"{passed:>5} s {self.megabytes[-1]:.0f} MB", flush=True)

    def stop(self) -> None:
        """Watch no more."""
        self._over.set()
        self.join()


def soak(file: Path, seconds: int) -> int:
    """Run it; returns the exit code."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        script, requests = folder / "soak.lua", folder / "requests.tsv"
        script.write_text(SCRIPT, encoding="utf-8")
        write_requests([example.text for example in read_examples(file)], requests)
        with running(CONTAINER) as server:
            health = HealthWatch(f"{server.url}/healthcheck")
            memory = MemoryWatch(server.process)
            for watch in (health, memory):
                watch.start()
            done = subprocess.run(  # noqa: S603
                ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "60s",  # noqa: S607
                 "-s", str(script), server.url, "--", str(requests)],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            memory.stop()
            health_ms = percentile(health.milliseconds(), 0.99)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("JSON ")]
    figures = json.loads(line.removeprefix("JSON "))
    grown = growth(memory.megabytes, minute=60 // PERIOD_SECONDS)
    print(
        f"{figures['requests']} requests, {figures['refused']} refused, {figures['unanswered']}"
        f" unanswered, {figures['failed']} failed; p50 {figures['p50_ms']:.0f} ms, p99"
        f" {figures['p99_ms']:.0f} ms; /healthcheck p99 {health_ms:.1f} ms; memory"
        f" {max(memory.megabytes):.0f} MB at most, {grown:+.1%} from the second minute to the last"
    )
    bad = figures["unanswered"] + figures["failed"]
    well = health_ms <= HEALTH_MS and grown <= GROWTH_LIMIT
    return int(bool(bad) or not well)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=int, default=600)
    options = parser.parse_args()
    if options.seconds < SHORTEST_SECONDS:
        parser.error(f"--seconds must be {SHORTEST_SECONDS} at least: growth is seen later")
    return soak(options.file, options.seconds)


if __name__ == "__main__":
    sys.exit(main())
