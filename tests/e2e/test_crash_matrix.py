"""SIGKILL of the runtime, of its container, of both, at every step that a request takes.

Gateway and dequeuer are one process. That what was acknowledged completes, with its own result, is
asserted in every case, and so is how often the container saw it.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.kills import ECHO, Kill, kill_all, kill_container, kill_runtime
from tests.helpers import RuntimeProcess, poll, submit, wait_until

BODY = {"number": 7}

Start = Callable[..., RuntimeProcess]


pytestmark = pytest.mark.usefixtures("_uncovered")


@pytest.fixture(autouse=True)
def _here(cortex_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One request at a time; the files that runtime, container and test share are the test's."""
    text = cortex_yaml.read_text(encoding="utf-8")
    cortex_yaml.write_text(text.replace("max_concurrency: 4", "max_concurrency: 1"))
    monkeypatch.chdir(cortex_yaml.parent)


def seen() -> int:
    """How often the container got the request."""
    path = Path("seen")
    return path.read_text().splitlines().count('{"number":7}') if path.exists() else 0


def queued(start: Start) -> tuple[RuntimeProcess, str]:
    """Accepted, and behind another one: leased ahead of time, though nobody can see that."""
    runtime = start(*ECHO)
    url = runtime.url()
    Path("hold").touch()
    submit(url, {"number": 0})
    wait_until(Path("seen").exists)
    request_id = submit(url, BODY)
    assert httpx.get(f"{url}/{request_id}").json()["status"] == "in_queue"
    return runtime, request_id


def computing(start: Start) -> tuple[RuntimeProcess, str]:
    """The container has it."""
    runtime = start(*ECHO)
    url = runtime.url()
    Path("hold").touch()
    request_id = submit(url, BODY)
    wait_until(seen)
    assert httpx.get(f"{url}/{request_id}").json()["status"] == "in_progress"
    return runtime, request_id


def paused(fault: str) -> Callable[[Start], tuple[RuntimeProcess, str]]:
    """Between two steps of the storage."""

    def begin(start: Start) -> tuple[RuntimeProcess, str]:
        runtime = start(*ECHO, fault=fault)
        request_id = submit(runtime.url(), BODY)
        wait_until(Path("reached").exists)
        return runtime, request_id

    return begin


def sent(start: Start) -> tuple[RuntimeProcess, str]:
    """The container has it, and the storage does not know that yet."""
    Path("hold").touch()
    runtime, request_id = paused("begin:before")(start)
    wait_until(seen)
    return runtime, request_id


MOMENTS = {
    "queued": queued,
    "leased": paused("receive:after"),
    "sent": sent,
    "computing": computing,
    "answered": paused("complete:before"),
    "committed": paused("complete:after"),
}
TWICE = {
    (kill_runtime, "sent"),
    (kill_container, "sent"),
    (kill_all, "sent"),
    (kill_runtime, "computing"),
    (kill_runtime, "answered"),
    (kill_container, "computing"),
    (kill_all, "computing"),
    (kill_all, "answered"),
}
"""Where the container must see it again; everywhere else once is enough."""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("kill", [kill_runtime, kill_container, kill_all])
def test_killed(start_runtime: Start, kill: Kill, moment: str) -> None:
    """What was acknowledged completes once, with its own result; again only if it must."""
    runtime, request_id = MOMENTS[moment](start_runtime)

    kill(runtime)

    Path("resume").touch()
    Path("hold").unlink(missing_ok=True)
    if runtime.process.poll() is not None:
        runtime = start_runtime(*ECHO)
    url = runtime.url()
    answer = wait_until(lambda: poll(url, request_id))
    assert (answer["status"], answer["result"]) == ("completed", BODY)
    assert seen() == (2 if (kill, moment) in TWICE else 1)
    assert runtime.interrupt() == 0  # nothing is left that could end it again
    assert "too late" not in runtime.text()


def post_as_mine(url: str) -> httpx.Response:
    """Submit under an id that is known beforehand."""
    return httpx.post(url, json=BODY, headers={"X-Request-Id": "mine"})


@pytest.mark.parametrize(("fault", "stored"), [("add:before", False), ("add:after", True)])
def test_killed_before_the_acknowledgement(start_runtime: Start, fault: str, stored: bool) -> None:
    """No id before the commit; a client that heard nothing sends again, and has one request."""
    runtime = start_runtime(*ECHO, fault=fault)
    url = runtime.url()
    with ThreadPoolExecutor() as pool:
        posting = pool.submit(post_as_mine, url)
        wait_until(Path("reached").exists)
        assert httpx.get(f"{url}/healthz").text == "ok"  # the gateway goes on
        assert not posting.done()
        kill_runtime(runtime)
        assert isinstance(posting.exception(), httpx.HTTPError)

    url = start_runtime(*ECHO).url()
    assert (httpx.get(f"{url}/mine").status_code == 200) is stored
    assert post_as_mine(url).json() == {"id": "mine"}
    assert wait_until(lambda: poll(url, "mine"))["result"] == BODY
    assert seen() == 1
