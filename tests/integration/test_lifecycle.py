"""The container as a process: how it starts, what it logs, how it fails and how it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from tests.container import ContainerProcess
from tests.helpers import DEADLINE, ROOT, scheduling_policies, usual_policy, wait_until

Start = Callable[..., ContainerProcess]
FAKE = "tests.container"
AS_FIRST_PROCESS = ("sh", "-c", "trap '' TERM; exec \"$@\"", "sh")
"""In an image SIGTERM ends no process that does not ask for it: the first one has no default."""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a container; ended after the test."""
    started: list[ContainerProcess] = []

    def start(
        module: str = FAKE,
        port: int | None = None,
        inside: Sequence[str] = (),
        **env: str,
    ) -> ContainerProcess:
        started.append(ContainerProcess(tmp_path, env, module, port, inside))
        return started[-1]

    yield start
    for each in started:
        each.close()


class Sender(threading.Thread):
    """One request; its response, or the error, is kept."""

    def __init__(self, url: str, text: str, headers: dict[str, str] | None = None) -> None:
        super().__init__()
        self.url, self.text, self.headers = url, text, headers
        self.response: httpx.Response | None = None
        self.start()

    def run(self) -> None:
        """Send it."""
        body = {"input_text": self.text}
        self.response = httpx.post(self.url, json=body, headers=self.headers, timeout=DEADLINE)

    def status(self) -> int:
        """Of its answer."""
        self.join(DEADLINE)
        assert self.response is not None
        return self.response.status_code


class Broken(Sender):
    """One request whose connection breaks."""

    def run(self) -> None:
        """Send it."""
        with pytest.raises(httpx.RemoteProtocolError):
            super().run()


def sent(url: str, text: str, **headers: str) -> Sender:
    """A request whose text the model is computing."""
    sender = Sender(url, text, {name.replace("_", "-"): value for name, value in headers.items()})
    wait_until(lambda: waiting(url))
    return sender


def waiting(url: str) -> bool:
    """Whether a request waits or is computed."""
    return "requests_waiting 0.0" not in httpx.get(f"{url}/metrics").text


@usual_policy
def test_inference_is_not_interrupted(start: Start) -> None:
    """A request that comes in waits for a core, whichever thread is to read it."""
    container = start("project")
    container.wait_ready()

    policies = scheduling_policies(container.process.pid)
    assert len(policies) > 1
    assert set(policies) == {os.SCHED_BATCH}


@usual_policy
def test_chosen_policy_is_left() -> None:
    """Who started it may have chosen otherwise."""
    script = (
        "import os; from project.server import let_inference_run; let_inference_run();"
        " print(os.sched_getscheduler(0) == os.SCHED_IDLE)"
    )
    command = ["chrt", "--idle", "0", sys.executable, "-c", script]

    assert subprocess.check_output(command, text=True, cwd=ROOT) == "True\n"


def test_one_json_line_per_request(start: Start) -> None:
    """Id, status, texts, tokens, time and problem; uvicorn's lines alike; never the text."""
    container = start("project", LOG_LEVEL="info", DRAIN_SECONDS="0")
    url = container.wait_ready()
    httpx.post(url, json=["a secret film", ""], headers={"X-Cortex-Request-ID": "id-1"})
    httpx.post(url, json="", headers={"X-Request-ID": 'a"\tb'})
    assert container.terminate() in {0, -signal.SIGTERM}

    lines = [line for line in container.lines() if line["logger"] == "project.access"]
    assert all(set(line) >= {"time", "level", "logger", "message"} for line in container.lines())
    assert any(str(line["logger"]).startswith("uvicorn") for line in container.lines())
    first, second = lines
    assert isinstance(first.pop("milliseconds"), float)
    assert first.pop("time")
    assert first == {
        "level": "info", "logger": "project.access", "message": "request", "id": "id-1",
        "method": "POST", "path": "/", "status": 200, "texts": 2, "tokens": 3,
    }  # fmt: skip
    assert (second["id"], second["status"], second["error"]) == ('a"\tb', 422, "empty-text")
    assert "secret" not in container.text()


def test_missing_model_is_one_line(start: Start, tmp_path: Path) -> None:
    """Exit code 1, and the last line of the log says why."""
    container = start("project", MODEL=str(tmp_path / "nothing"))

    assert container.process.wait(DEADLINE) == 1
    last = container.lines()[-1]
    assert last["level"] == "critical"
    assert "nothing" in str(last["message"])
    assert "Traceback" not in container.text()


def test_bad_setting_is_one_line(start: Start) -> None:
    """Exit code 1, and the variable is named as it was set."""
    container = start("project", MAX_TEXTS="0")

    assert container.process.wait(DEADLINE) == 1
    assert container.text().splitlines() == [
        "MAX_TEXTS: Input should be greater than or equal to 1, not '0'"
    ]


def test_taken_port_is_told(start: Start) -> None:
    """Exit code 1 and the reason, while the model is being loaded."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        container = start("project", port=other.getsockname()[1])

        assert container.process.wait(DEADLINE) == 1
    (error,) = [line for line in container.lines() if line["level"] == "error"]
    assert "address already in use" in str(error["message"])


def test_sigterm_finishes_what_is_in_flight(start: Start) -> None:
    """A request that is computed, and one that comes just after the signal, are both answered."""
    container = start(ENABLE_METRICS="true", DRAIN_SECONDS="2")
    url = container.wait_ready()
    computed = sent(url, "sleep 1")
    container.process.send_signal(signal.SIGTERM)
    wait_until(lambda: "told to stop" in container.text())
    late = Sender(url, "late")

    assert (computed.status(), late.status()) == (200, 200)
    assert container.process.wait(DEADLINE) in {0, -signal.SIGTERM}


def test_sigterm_finishes_what_waits_for_room(start: Start) -> None:
    """A request of the queue's that is not among what may wait yet is answered all the same."""
    container = start(ENABLE_METRICS="true", DRAIN_SECONDS="0", MAX_WAITING_REQUESTS="1")
    url = container.wait_ready()
    computed = sent(url, "sleep 1")
    queued = Sender(url, "queued", {"X-Cortex-Request-ID": "1"})
    in_flight = "requests_in_flight 2.0"
    wait_until(lambda: in_flight in httpx.get(f"{url}/metrics").text)
    container.process.send_signal(signal.SIGTERM)

    assert (computed.status(), queued.status()) == (200, 200)
    assert container.process.wait(DEADLINE) in {0, -signal.SIGTERM}


@pytest.mark.parametrize("inside", [(), AS_FIRST_PROCESS], ids=["alone", "in an image"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_does_not_wait_for_the_model(
    start: Start, number: signal.Signals, inside: Sequence[str]
) -> None:
    """A model that is still being loaded is left where it is, also within a library in C++."""
    container = start(inside=inside, MODEL="endless", DRAIN_SECONDS="0")
    wait_until(lambda: "not enough" in container.text())
    wait_until(lambda: container.health())
    container.process.send_signal(number)

    assert container.process.wait(DEADLINE) in {0, -signal.SIGTERM}
    assert not [line for line in container.lines() if line["level"] not in {"info", "warning"}]


def test_dead_engine_is_replaced(start: Start) -> None:
    """Its callers get 503 at once, one from the queue is answered by the next, and it is ready."""
    container = start(ENABLE_METRICS="true")
    url = container.wait_ready()
    queued = sent(url, "sleep 1", X_Cortex_Request_ID="1")
    dying = Sender(url, "die")

    assert dying.status() == 503
    assert queued.status() == 200
    container.wait_ready()
    assert httpx.post(url, json="a").status_code == 200
    assert "the model is loaded again" in container.text()


def test_hanging_engine_ends_the_process(start: Start) -> None:
    """/healthcheck tells, who waits gets 503, and the process ends with code 1 and says why.

    A connection of the queue's breaks, so that its request may be delivered again.
    """
    container = start(ENABLE_METRICS="true", MAX_BATCH_SECONDS="0.5")
    url = container.wait_ready()
    hanging = sent(url, "hang")
    behind = Sender(url, "behind")
    queued = Broken(url, "queued", {"X-Cortex-Request-ID": "id-1"})

    assert (hanging.status(), behind.status()) == (503, 503)
    health = container.health()
    assert health is not None
    assert (health.status_code, health.json()["status"]) == (503, "stalled")
    assert "0.5 s are allowed" in health.json()["reason"]
    assert container.process.wait(DEADLINE) == 1
    queued.join(DEADLINE)
    critical = [line for line in container.lines() if line["level"] == "critical"]
    assert len(critical) == 1
    (unanswered,) = [line for line in container.lines() if "without" in str(line["message"])]
    assert unanswered["id"] == "id-1"


def test_queued_request_waits_for_the_model(start: Start) -> None:
    """One that comes before the model is loaded is answered, for the queue does not try again."""
    container = start("project")
    wait_until(lambda: container.health())

    response = httpx.post(
        container.url, json="i like you", headers={"X-Cortex-Request-ID": "1"}, timeout=DEADLINE
    )

    assert (response.status_code, response.json()["label"]) == (200, "POSITIVE")
