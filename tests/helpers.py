"""What several tests share: polling, live servers, a fake model, the runtime as a process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
import uvicorn

from project.sentiment.options import OnLongText
from project.sentiment.prediction import EncodedText, Prediction, TokenIds

ROOT = Path(__file__).parent.parent
DEADLINE = 60.0  # seconds: far more than anything here takes, so that only a hang reaches it

T = TypeVar("T")


def wait_until(check: Callable[[], T | None], *, seconds: float = DEADLINE) -> T:
    """Call ``check`` until it returns something true; the only place where tests sleep."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {check}")
        time.sleep(0.01)


async def eventually(check: Callable[[], bool], *, seconds: float = DEADLINE) -> None:
    """Like :func:`wait_until`, with the event loop running meanwhile."""
    async with asyncio.timeout(seconds):
        while not check():  # noqa: ASYNC110  (anything may be looked at, not only an event)
            await asyncio.sleep(0.001)


usual_policy = pytest.mark.skipif(
    not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER,
    reason="not Linux, or the tests were started under a scheduling policy that stays",
)


def scheduling_policies(pid: int) -> list[int]:
    """Of all threads of a process."""
    policies = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            policies.append(os.sched_getscheduler(int(thread.name)))
    return policies


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def listening(
    talk: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]],
) -> AsyncIterator[int]:
    """``talk`` on every connection to a free port, which is yielded; the client must end them."""
    connections: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.create_task(run(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        port: int = server.sockets[0].getsockname()[1]
        yield port
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*connections, return_exceptions=True)


@contextlib.contextmanager
def serve(app: Any, **options: Any) -> Iterator[str]:  # noqa: ANN401  (any ASGI app)
    """Run ``app`` under uvicorn on a free port; yields its URL and stops it afterwards."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        options = {"log_config": None, "access_log": False, **options}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started or not thread.is_alive())
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(DEADLINE)


class FakeClock:
    """A clock that goes on when it is told to.

    Attributes:
        now: in seconds.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """What it shows."""
        return self.now


class FakeClassifier:
    """POSITIVE with the text's length in hundredths; can be held, and told to fail.

    A token is a character; a text with the word "raise" makes a batch fail.

    Attributes:
        encoded: the texts that were tokenised.
        calls: the texts of every batch.
        gate: a batch waits until it is set.
    """

    name = "fake"
    revision = "0123456789ab"
    backend = "fake"

    def __init__(self, workers: int = 1) -> None:
        self.label = "POSITIVE"
        self.workers = workers
        self.encoded: list[str] = []
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """Every text is one window of its characters; more than 1000 are refused on request."""
        self.encoded += texts
        if on_long_text is OnLongText.REJECT:
            return [self._limited(text) for text in texts]
        return [EncodedText((tuple(map(ord, text)),), len(text)) for text in texts]

    def _limited(self, text: str) -> EncodedText:
        if len(text) > 1000:
            return EncodedText((), len(text), over=1000)
        return EncodedText((tuple(map(ord, text)),), len(text))

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """Answer from the lengths."""
        texts = ["".join(map(chr, ids)) for ids in batch]
        self.calls.append(texts)
        assert self.gate.wait(DEADLINE)
        if any("raise" in text for text in texts):
            raise RuntimeError("told to")
        return [[min(1.0, len(text) / 100)] for text in texts]

    def combine(self, text: EncodedText, rows: Sequence[Sequence[float]]) -> Prediction:
        """The mean of the rows."""
        score = sum(row[0] for row in rows) / len(rows)
        scores = {self.label: score, "NEGATIVE": 1 - score}
        return Prediction(self.label, score, scores, text.tokens, len(text.windows), text.truncated)

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """All at once."""
        encoded = self.encode(texts)
        rows = self.infer([each.windows[0] for each in encoded])
        return [self.combine(each, [row]) for each, row in zip(encoded, rows, strict=True)]


def write_cortex_yaml(folder: Path) -> Path:
    """A ``cortex.yaml`` whose container has a free port."""
    port = free_port()
    path = folder / "cortex.yaml"
    path.write_text(
        f"""
- name: sentiment
  kind: AsyncAPI
  pod:
    port: {port}
    max_concurrency: 4
    containers:
      - name: api
        image: sentiment
        env: {{ENABLE_METRICS: "true"}}
        readiness_probe:
          http_get: {{port: {port}, path: /healthcheck}}
""",
        encoding="utf-8",
    )
    return path


class RuntimeProcess:
    """``python -m project.asyncapi`` in a process group of its own.

    Args:
        cwd: where it runs and keeps its queue.
        fault: see :mod:`tests.faults`.
        inside: a command that runs the command that follows it.
    """

    def __init__(
        self, cwd: Path, arguments: Sequence[str], fault: str = "", inside: Sequence[str] = ()
    ) -> None:
        self.cwd = cwd
        self.output = cwd / "output.txt"
        with self.output.open("a", encoding="utf-8") as output:
            self._offset = output.tell()
            self.process = subprocess.Popen(
                [
                    *inside,
                    sys.executable,
                    "-m",
                    "tests.faults" if fault else "project.asyncapi",
                    "--port",
                    "0",
                    "--metrics-port",
                    "0",
                    *arguments,
                ],
                cwd=cwd,
                env={**os.environ, "PYTHONPATH": str(ROOT), "FAULT": fault},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def text(self) -> str:
        """What it has printed."""
        with self.output.open(encoding="utf-8") as output:
            output.seek(self._offset)
            return output.read()

    def url(self) -> str:
        """The API's URL, once it is ready."""
        wait_until(lambda: "\nCtrl-C" in self.text() or self.process.poll() is not None)
        lines = [line for line in self.text().splitlines() if line.startswith("ready: ")]
        assert lines, self.text()
        return lines[0].split(" answers on ")[1].split(",")[0]

    def interrupt(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(DEADLINE)

    def kill(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        self.process.kill()
        self.process.wait(DEADLINE)

    def close(self) -> None:
        """End it whatever its state."""
        if self.process.poll() is None:
            self.kill()


def poll(url: str, request_id: str) -> dict[str, Any] | None:
    """The status object of a request if it has ended, else None."""
    answer: dict[str, Any]
    answer = httpx.get(f"{url}/{request_id}").raise_for_status().json()
    return answer if answer["status"] in {"completed", "failed"} else None


def submit(url: str, body: object) -> str:
    """Submit a JSON body; returns the id."""
    answer = httpx.post(url, json=body).raise_for_status()
    request_id: str = answer.json()["id"]
    return request_id
