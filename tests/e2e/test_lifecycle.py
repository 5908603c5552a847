"""Start and stop: what is finished, what stays, what is restarted, and several APIs at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from project.asyncapi.leftovers import mark
from tests.e2e.kills import ECHO
from tests.helpers import (
    RuntimeProcess,
    free_port,
    poll,
    scheduling_policies,
    submit,
    usual_policy,
    wait_until,
)

Start = Callable[..., RuntimeProcess]


def is_refused(url: str) -> bool:
    """Whether nothing listens there any more."""
    try:
        httpx.get(f"{url}/healthz")
    except httpx.TransportError:
        return True
    return False


@usual_policy
def test_runtime_does_not_interrupt_the_model(start_runtime: Start, tmp_path: Path) -> None:
    """All its threads wait for a core that the container computes on; the container is as usual."""
    runtime = start_runtime(*ECHO)
    runtime.url()

    assert set(scheduling_policies(runtime.process.pid)) == {os.SCHED_BATCH}
    container = int((tmp_path / "container.pid").read_text())
    assert os.sched_getscheduler(container) == os.SCHED_OTHER


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stop_drains(start_runtime: Start, tmp_path: Path, number: int) -> None:
    """What runs is finished and stored, what waits is computed after the next start, once each."""
    runtime = start_runtime(*ECHO)
    url = runtime.url()
    (tmp_path / "hold").touch()
    ids = [submit(url, {"number": each}) for each in range(10)]
    seen = tmp_path / "seen"
    wait_until(lambda: seen.exists() and len(seen.read_text().splitlines()) == 4)

    runtime.process.send_signal(number)
    wait_until(lambda: "stopping" in runtime.text())
    wait_until(lambda: is_refused(url))  # nothing new is taken
    assert runtime.process.poll() is None
    (tmp_path / "hold").unlink()
    assert runtime.process.wait(60) == 0

    assert len(seen.read_text().splitlines()) == 4
    url = start_runtime(*ECHO).url()
    for each, request_id in enumerate(ids):
        assert wait_until(lambda name=request_id: poll(url, name))["result"] == {"number": each}  # type: ignore[misc]
    assert sorted(json.loads(line)["number"] for line in seen.read_text().splitlines()) == [
        *range(10)
    ]


def test_second_ctrl_c_waits_for_nothing(start_runtime: Start, cortex_yaml: Path) -> None:
    """Neither for requests nor for pre_stop."""
    cortex_yaml.write_text(
        cortex_yaml.read_text()
        + """
        pre_stop:
          exec: {command: [sh, -c, "touch stopping; exec sleep 3600"]}
"""
    )
    runtime = start_runtime(*ECHO)
    runtime.url()
    runtime.process.send_signal(signal.SIGINT)
    wait_until((cortex_yaml.parent / "stopping").exists)

    runtime.process.send_signal(signal.SIGINT)
    assert runtime.process.wait(20) == 0  # a third of pre_stop's grace


def test_stopped_while_it_starts(start_runtime: Start, tmp_path: Path) -> None:
    """Ctrl-C before the container is ready ends both, though nothing was ever ready."""
    runtime = start_runtime("--command", "sh -c 'echo $$ > container.pid; exec sleep 600'")
    pid = tmp_path / "container.pid"
    wait_until(lambda: pid.exists() and pid.read_text())

    assert runtime.interrupt() == 0

    assert not Path(f"/proc/{pid.read_text().strip()}").exists()
    assert "Traceback" not in runtime.text()


def test_container_that_dies_at_once(start_runtime: Start, tmp_path: Path) -> None:
    """Requests are taken meanwhile, the pauses grow, and a container that works finds its work."""
    port = free_port()
    command = f"sh -c 'test -e mended || exit 3; exec {ECHO[1]}'"
    runtime = start_runtime("--command", command, "--port", str(port))
    wait_until(lambda: "exited with 3; restarting it in 1.0 s" in runtime.text())
    assert "exited with 3; restarting it in 0.5 s" in runtime.text()
    request_id = submit(f"http://127.0.0.1:{port}/sentiment", {"number": 1})

    (tmp_path / "mended").touch()

    assert wait_until(lambda: poll(runtime.url(), request_id))["result"] == {"number": 1}
    assert runtime.interrupt() == 0


def test_children_that_outlive_a_killed_runtime(start_runtime: Start, tmp_path: Path) -> None:
    """They would hold the container's port against the next start, which ends them first."""
    command = ("--command", f"sh -c '{ECHO[1]} & wait'")  # the shell dies with the runtime
    killed = start_runtime(*command)
    submit(killed.url(), {"number": 1})
    child = int((tmp_path / "container.pid").read_text())
    stranger = start_marked_for(tmp_path / "other.sqlite3")
    killed.kill()
    os.kill(child, 0)

    runtime = start_runtime(*command)

    url = runtime.url()
    request_id = submit(url, {"number": 2})
    assert wait_until(lambda: poll(url, request_id))
    assert f"process {child} is left from a container of an earlier run" in runtime.text()
    assert not Path(f"/proc/{child}").exists() or is_zombie(child)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert runtime.interrupt() == 0


def start_marked_for(storage: Path) -> subprocess.Popen[bytes]:
    """A process of another storage's container."""
    return subprocess.Popen(["sleep", "600"], env={**os.environ, **mark(storage)})


def is_zombie(pid: int) -> bool:
    """Whether nobody has asked yet how it ended."""
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_two_apis(start_runtime: Start, cortex_yaml: Path) -> None:
    """Each has its endpoint, its queue, its container and its metrics, on one port."""
    second = cortex_yaml.read_text().replace("name: sentiment", "name: other")
    second += "  networking: {endpoint: some/where}\n"
    cortex_yaml.write_text(cortex_yaml.read_text() + second)
    runtime = start_runtime(*ECHO)
    url = runtime.url()
    other = url.replace("/sentiment", "/some/where")

    ids = submit(url, {"api": 1}), submit(other, {"api": 2})

    assert wait_until(lambda: poll(url, ids[0]))["result"] == {"api": 1}
    assert wait_until(lambda: poll(other, ids[1]))["result"] == {"api": 2}
    assert httpx.get(f"{url}/{ids[1]}").status_code == 404
    assert httpx.post(url.replace("/sentiment", "/other")).status_code == 404
    metrics = runtime.text().partition("Metrics: ")[2].splitlines()[0]
    text = httpx.get(metrics).text
    for name in ("sentiment", "other"):
        labels = f'api_kind="AsyncAPI",api_name="{name}",status_code="200"'
        assert f"cortex_async_request_count{{{labels}}} 1.0" in text
    assert sorted(path.name for path in (cortex_yaml.parent / ".asyncapi").glob("*.sqlite3")) == [
        "other.sqlite3",
        "sentiment.sqlite3",
    ]
    assert runtime.interrupt() == 0


def test_sick_container_is_restarted(start_runtime: Start, cortex_yaml: Path) -> None:
    """Liveness fails: pre_stop, SIGTERM, a new process; what it was computing still completes."""
    folder = cortex_yaml.parent
    cortex_yaml.write_text(
        cortex_yaml.read_text()
        + """
        liveness_probe:
          exec: {command: [sh, -c, "test ! -e sick"]}
          period_seconds: 1
          failure_threshold: 1
          timeout_seconds: 30
        pre_stop:
          exec: {command: [sh, -c, "rm sick; echo bye >> stopped"]}
"""
    )
    runtime = start_runtime(*ECHO)
    url = runtime.url()
    first = (folder / "container.pid").read_text()
    (folder / "hold").touch()
    request_id = submit(url, {"number": 1})
    wait_until((folder / "seen").exists)

    (folder / "sick").touch()
    wait_until(lambda: (folder / "container.pid").read_text() not in {"", first})
    (folder / "hold").unlink()

    assert wait_until(lambda: poll(url, request_id))["result"] == {"number": 1}
    assert (folder / "stopped").read_text() == "bye\n"
    assert "fails its liveness probe" in runtime.text()
    assert runtime.interrupt() == 0


def test_every_transition_is_logged(start_runtime: Start) -> None:
    """A JSON line with the id when it is queued, sent and ended."""
    runtime = start_runtime(*ECHO)
    url = runtime.url()
    request_id = submit(url, {"number": 1})
    unreadable = submit(url, [1])
    wait_until(lambda: poll(url, request_id))
    wait_until(lambda: httpx.get(f"{url}/{unreadable}").status_code == 500)
    assert runtime.interrupt() == 0

    lines = [json.loads(line) for line in runtime.text().splitlines() if line.startswith("{")]
    events = [line["message"] for line in lines if line.get("id") == request_id]
    assert events == ["in_queue", "in_progress", "completed"]
    (warning,) = (
        line["message"]
        for line in lines
        if line.get("id") == unreadable and line["level"] == "warning"
    )
    assert "answered with a JSON array" in warning
