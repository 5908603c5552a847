"""``python -m project.asyncapi``: submit, poll, crash, start again, with the real model."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from project.asyncapi.__main__ import main
from project.asyncapi.config import read_config
from tests.e2e.kills import ECHO
from tests.helpers import DEADLINE, ROOT, RuntimeProcess, free_port, poll, submit, wait_until

Start = Callable[..., RuntimeProcess]


def client(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``python async_requests.py`` against ``url``."""
    command = [sys.executable, str(ROOT / "async_requests.py"), "--endpoint", url, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def container_port(cortex_yaml: Path) -> int:
    """The port in ``cortex.yaml``."""
    return read_config(cortex_yaml)[0].pod.port


def container_pid(port: int) -> int:
    """The process that listens on the container's port, found by its command line."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if "project" in words and str(port) in words:
                return int(folder.name)
    return 0


def test_the_path(start_runtime: Start, tmp_path: Path) -> None:
    """Submit, poll, result, by JSON, by query and with the client; then Ctrl-C, cleanly."""
    runtime = start_runtime()
    url = runtime.url()

    request_id = submit(url, {"input_text": "i like you"})
    answer = wait_until(lambda: poll(url, request_id))
    assert set(answer) == {"id", "status", "result", "timestamp"}
    assert (answer["id"], answer["status"]) == (request_id, "completed")
    assert answer["result"]["label"] == "POSITIVE"

    query = httpx.post(f"{url}?input_text=i%20hate%20you", headers={"accept": "application/json"})
    answer = wait_until(lambda: poll(url, query.json()["id"]))
    assert answer["result"]["label"] == "NEGATIVE"

    request_id = submit(url, {"input_text": ["i like you", "i hate you"]})
    answer = wait_until(lambda: poll(url, request_id))
    assert [each["label"] for each in answer["result"]["predictions"]] == ["POSITIVE", "NEGATIVE"]

    done = client(url, "i like you", "i hate you")
    assert done.returncode == 0, done.stderr
    results = [json.loads(line)["result"] for line in done.stdout.splitlines()]
    assert [result["label"] for result in results] == ["POSITIVE", "NEGATIVE"]

    texts = tmp_path / "texts.txt"
    texts.write_text("wonderful\n\nawful\n", encoding="utf-8")
    done = client(url, "--file", str(texts))
    assert done.returncode == 1
    assert "2 completed, 1 failed" in done.stderr
    assert json.loads(done.stdout.splitlines()[1])["error"] == "input_text is empty"

    assert runtime.interrupt() == 0
    assert "Traceback" not in runtime.text()


def test_nothing_accepted_is_lost(start_runtime: Start) -> None:
    """SIGKILL of every process with 200 requests accepted: all complete after the next start."""
    runtime = start_runtime()
    url = runtime.url()
    # The first requests keep the container busy, so that the kill comes before the last ends.
    slow = [submit(url, {"input_text": ["a long review " * 100] * 32}) for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        bodies = [{"input_text": f"film {number} is wonderful"} for number in range(200)]
        accepted = slow + list(pool.map(lambda body: submit(url, body), bodies))
    states = {httpx.get(f"{url}/{name}").json()["status"] for name in accepted[-100:]}
    assert "in_queue" in states
    runtime.kill()

    restarted = start_runtime()
    url = restarted.url()
    answers = [wait_until(lambda name=name: poll(url, name)) for name in accepted]  # type: ignore[misc]
    assert {answer["status"] for answer in answers} == {"completed"}
    assert {answer["result"]["label"] for answer in answers[4:]} == {"POSITIVE"}
    assert restarted.interrupt() == 0


def test_killed_container_is_replaced(start_runtime: Start, cortex_yaml: Path) -> None:
    """SIGKILL of the container mid-request: it is started again, and the request completes.

    SIGKILL of the runtime then leaves no container behind that would block the next start.
    """
    runtime = start_runtime()
    url = runtime.url()
    port = container_port(cortex_yaml)
    request_id = submit(url, {"input_text": ["a long review " * 100] * 32})
    wait_until(lambda: "in_progress" in httpx.get(f"{url}/{request_id}").text)
    os.kill(container_pid(port), signal.SIGKILL)

    assert wait_until(lambda: poll(url, request_id))["status"] == "completed"
    assert "restarting it" in runtime.text()
    assert container_pid(port)

    runtime.kill()

    wait_until(lambda: not container_pid(port))


HANGING = """
import http.server, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def do_POST(self):
        time.sleep(3600)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_second_interrupt_does_not_wait(start_runtime: Start, tmp_path: Path) -> None:
    """A container that hangs and ignores SIGTERM holds the first Ctrl-C, not the second."""
    (tmp_path / "hanging.py").write_text(HANGING, encoding="utf-8")
    runtime = start_runtime("--command", f"{sys.executable} hanging.py $(CORTEX_PORT)")
    url = runtime.url()
    request_id = submit(url, {})
    wait_until(lambda: "in_progress" in httpx.get(f"{url}/{request_id}").text)

    runtime.process.send_signal(signal.SIGINT)
    wait_until(lambda: "stopping" in runtime.text())
    assert runtime.process.poll() is None

    assert runtime.interrupt() == 0
    assert "sent again after the next start" in runtime.text()
    assert "Traceback" not in runtime.text()


def test_unfinished_upload_does_not_hold_the_stop(start_runtime: Start) -> None:
    """A client that never ends its request was promised nothing: Ctrl-C leaves it behind."""
    runtime = start_runtime(*ECHO)
    address = httpx.URL(runtime.url())
    with socket.create_connection((address.host, address.port)) as client:
        client.sendall(b"POST /sentiment HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        wait_until(lambda: httpx.get(f"{address}/healthz").text == "ok")

        assert runtime.interrupt() == 0


def test_second_runtime_is_refused(start_runtime: Start, tmp_path: Path) -> None:
    """Two runtimes on one queue would send requests twice: the second says so and ends."""
    elsewhere = ("--container-url", f"http://127.0.0.1:{free_port()}")
    first = start_runtime(*elsewhere)
    wait_until((tmp_path / ".asyncapi" / "sentiment.sqlite3").exists)

    second = start_runtime(*elsewhere)

    assert second.process.wait(DEADLINE) == 1
    assert "another AsyncAPI is running" in second.text()
    assert first.process.poll() is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nothing.yaml"], "nothing.yaml"),
        (["--host", "192.0.2.1"], "cannot be used"),
        (["--storage", "/proc/nothing/queue"], "/proc/nothing"),
        (["--container-url", "localhost:8000"], "must be http://host:port"),
        (["--container-url", "http://localhost:8000/api"], "must be http://host:port"),
    ],
)
def test_what_stops_a_start_is_said(
    arguments: list[str],
    message: str,
    cortex_yaml: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Exit code 1 and the reason on one line."""
    monkeypatch.chdir(cortex_yaml.parent)

    assert main(["--port", "0", "--metrics-port", "0", *arguments]) == 1

    assert message in capsys.readouterr().err


def test_taken_container_port_is_said(start_runtime: Start, cortex_yaml: Path) -> None:
    """A stranger on the container's port is not mistaken for the container."""
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", container_port(cortex_yaml)))
        stranger.listen()
        runtime = start_runtime()

        assert runtime.process.wait(DEADLINE) == 1
        assert "is in use" in runtime.text()
