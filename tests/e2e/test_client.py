"""``async_requests.py`` as a process, against the runtime: killed, cut off, restarted.

CLIENT_KILLS=10 CLIENT_ROWS=20000 python -m pytest tests/e2e/test_client.py  runs the long form.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.client.nasty import Nasty, nasty
from tests.helpers import (
    DEADLINE,
    ROOT,
    RuntimeProcess,
    eventually,
    free_port,
    wait_until,
    write_cortex_yaml,
)

KILLS = int(os.environ.get("CLIENT_KILLS", "3"))
ROWS = int(os.environ.get("CLIENT_ROWS", "750"))
SCRIPT = str(ROOT / "async_requests.py")
STUB = ("--command", f"{sys.executable} -m bench.stub_container $(CORTEX_PORT)")

Start = Callable[..., RuntimeProcess]
pytestmark = pytest.mark.timeout(120 + ROWS / 20)


def write_rows(path: Path, count: int = ROWS) -> list[list[str]]:
    """A CSV of ``count`` rows, each of its own, some with line feeds and quotes."""
    chance = random.Random(count)  # noqa: S311  (no secret)
    rows = [
        [str(number), f'text "{number}"' + chance.choice(["", "\nand more", ", good"]) * 3]
        for number in range(count)
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["number", "text"], *rows])
    return rows


def read_rows(path: Path) -> list[list[str]]:
    """The rows of an output, without their ids: every run has its own."""
    with path.open(encoding="utf-8", newline="") as file:
        return [row[:4] + row[5:] for row in csv.reader(file)]


def base(runtime: RuntimeProcess) -> str:
    """The runtime's URL without the endpoint."""
    return runtime.url().rpartition("/")[0]


async def start_client(proxy: Nasty, folder: Path, output: str) -> asyncio.subprocess.Process:
    """The client on its way from ``in.csv`` to ``output``, with a state file."""
    command = [SCRIPT, "--endpoint", f"{proxy.url}/sentiment", "--file", "in.csv", "--output",
               output, "--state", f"{output}.state", "--batch-size", "10", "--json"]  # fmt: skip
    return await asyncio.create_subprocess_exec(
        sys.executable, *command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


async def finish(client: asyncio.subprocess.Process) -> dict[str, object]:
    """Wait for a client that succeeds; returns its summary."""
    out, err = await client.communicate()
    assert client.returncode == 0, err.decode()
    summary: dict[str, object] = json.loads(out)
    return summary


def recorded(state: Path) -> set[str]:
    """The ids in a state file, as a client that was killed has left it."""
    if not state.exists():
        return set()
    with sqlite3.connect(state) as database:
        tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        rows = database.execute("SELECT id FROM requests").fetchall() if tables else []
    database.close()
    return {request_id for (request_id,) in rows}


async def kill_at_random(proxy: Nasty, folder: Path) -> dict[bytes, int]:
    """SIGKILL the client ``KILLS`` times; bodies that were recorded, and their submissions then."""
    chance = random.Random(KILLS)  # noqa: S311  (no secret)
    settled: dict[bytes, int] = {}
    for _ in range(KILLS):
        client = await start_client(proxy, folder, "killed.csv")
        moment = proxy.requests + chance.randrange(1, max(3, ROWS // 5 // KILLS))
        ended = asyncio.create_task(client.wait())
        await eventually(lambda: proxy.requests >= moment or ended.done())  # noqa: B023
        if not ended.done():
            client.kill()
        await client.communicate()
        known = recorded(folder / "killed.csv.state")
        settled |= {body: proxy.bodies[body] for body, name in proxy.ids.items() if name in known}
    return settled


@pytest.mark.parametrize("external", [False, True])
def test_killed_client_goes_on(start_runtime: Start, tmp_path: Path, external: bool) -> None:
    """SIGKILL at random moments: the output is that of an undisturbed run.

    A gateway that keeps its clients' ids gets every request once; one that replaces them gets none
    again whose id the state file had.
    """
    rows = write_rows(tmp_path / "in.csv")

    async def run() -> None:
        async with nasty(Nasty(base(start_runtime(*STUB)), external=external)) as proxy:
            await finish(await start_client(proxy, tmp_path, "whole.csv"))
            proxy.bodies.clear()
            proxy.ids.clear()
            settled = await kill_at_random(proxy, tmp_path)
            summary = await finish(await start_client(proxy, tmp_path, "killed.csv"))
            assert summary["completed"] == len(rows)
            assert settled
            assert {body: proxy.bodies[body] for body in settled} == settled
            if not external:
                assert set(proxy.bodies.values()) == {1}

    asyncio.run(run())

    found = read_rows(tmp_path / "killed.csv")
    assert found == read_rows(tmp_path / "whole.csv")
    assert [row[:2] for row in found[1:]] == rows


def test_nasty_gateway(start_runtime: Start, tmp_path: Path) -> None:
    """Every tenth answer is a 503, every tenth connection cut, the gateway killed twice."""
    rows = write_rows(tmp_path / "in.csv")
    port = str(free_port())

    async def run() -> dict[str, object]:
        runtime = start_runtime(*STUB, "--port", port)
        proxy = Nasty(base(runtime), lose_every=10, drop_every=10)
        async with nasty(proxy):
            client = await start_client(proxy, tmp_path, "out.csv")
            for _ in range(2):
                moment = proxy.requests + ROWS // 40
                await eventually(lambda: proxy.requests >= moment)  # noqa: B023
                runtime.kill()
                runtime = start_runtime(*STUB, "--port", port)
            summary = await finish(client)
            assert set(proxy.bodies.values()) == {1}
            return summary

    summary = asyncio.run(run())

    assert summary["completed"] == len(rows)
    assert int(str(summary["retries"])) > ROWS / 10 / 10
    assert [row[:2] for row in read_rows(tmp_path / "out.csv")[1:]] == rows


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A runtime with a container that answers at once."""
    folder = tmp_path_factory.mktemp("runtime")
    write_cortex_yaml(folder)
    runtime = RuntimeProcess(folder, STUB)
    try:
        yield runtime.url()
    finally:
        runtime.close()


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of shell, as people type it."""
    return subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        timeout=DEADLINE,
        env={**os.environ, "python": sys.executable, "script": SCRIPT, **environment},
    )


def test_pipes(endpoint: str, tmp_path: Path) -> None:
    """Standard input is read, in gzip too; a reader that leaves early gets no traceback."""
    lines = "".join(f"{number},text {number}\n" for number in range(2000))
    (tmp_path / "in.csv").write_text(f"number,text\n{lines}", encoding="utf-8")
    environment = {"SENTIMENT_ENDPOINT": endpoint, "file": str(tmp_path / "in.csv")}

    done = shell("head -3 $file | $python $script - --column text", **environment)
    assert (done.returncode, len(done.stdout.splitlines())) == (0, 2)

    done = shell("gzip -c $file | $python $script - --column 2 | head -2", **environment)
    assert len(done.stdout.splitlines()) == 2
    assert "Traceback" not in done.stderr

    done = shell("cat $file | $python $script - --batch-size 1 2>&1 | head -1", **environment)
    assert "Traceback" not in done.stdout


def test_a_waiting_input_does_not_hold_the_end(endpoint: str) -> None:
    """Ctrl-C while standard input has nothing more: what was read is finished."""
    client = subprocess.Popen(
        [sys.executable, SCRIPT, "-", "--endpoint", endpoint, "--batch-size", "1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("i like you\n")
    client.stdin.flush()
    first = json.loads(client.stdout.readline())
    client.send_signal(signal.SIGINT)

    assert client.wait(DEADLINE) == 130
    assert first["text"] == "i like you"
    assert "Traceback" not in client.stderr.read()  # type: ignore[union-attr]
    client.communicate()


def test_wrong_names_are_said(endpoint: str) -> None:
    """A wrong API name and a port where nothing listens: one line, exit code 2."""
    nowhere = f"http://127.0.0.1:{free_port()}/sentiment"
    for url, words in ((f"{endpoint}s", "is the name of the API right?"), (nowhere, "reached")):
        done = shell("$python $script x --quiet", SENTIMENT_ENDPOINT=url)

        assert done.returncode == 2
        assert words in done.stderr.splitlines()[0]
        assert done.stdout == ""


def test_waits_for_the_service(start_runtime: Start, cortex_yaml: Path) -> None:
    """``--wait-ready`` begins before there is a gateway."""
    port = str(free_port())
    client = subprocess.Popen(
        [sys.executable, SCRIPT, "x", "--wait-ready", "60",
         "--endpoint", f"http://127.0.0.1:{port}/sentiment"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    start_runtime(*STUB, "--port", port)

    out, err = client.communicate(timeout=DEADLINE)

    assert client.returncode == 0, err
    assert json.loads(out)["text"] == "x"


@pytest.mark.parametrize("to_screen", [False, True])
def test_live_display_in_a_terminal(endpoint: str, tmp_path: Path, to_screen: bool) -> None:
    """On a terminal the counts stay on the screen while the run goes on; NO_COLOR is respected.

    Results that go to the same terminal are above them.
    """
    import pty  # here: not on every system that can run the other tests

    write_rows(tmp_path / "in.csv", 1000)
    command = [sys.executable, SCRIPT, "--file", str(tmp_path / "in.csv"), "--batch-size", "4",
               "--endpoint", endpoint]  # fmt: skip
    if not to_screen:
        command += ["--output", str(tmp_path / "out.csv")]
    terminal, inside = pty.openpty()
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}
    stdout = inside if to_screen else None
    client = subprocess.Popen(command, stdout=stdout, stderr=inside, env=environment)
    os.close(inside)
    shown = bytearray()

    def read() -> bool:
        try:
            shown.extend(os.read(terminal, 65536))
        except OSError:  # nobody holds the other end any more
            return True
        return False

    wait_until(read)
    os.close(terminal)

    assert client.wait(DEADLINE) == 0
    text = shown.decode()
    assert "submitted" in text
    assert "in queue" in text
    assert "1,000 completed" in text
    assert text.count('"label": ') == (2000 if to_screen else 0)
    assert not [code for code in range(30, 38) if f"\x1b[{code}m" in text]


def test_gateways_ids_are_kept(endpoint: str) -> None:
    """The id that a client asks for is the request's, and asking twice queues it once."""
    headers = {"X-Request-Id": "my-own-id", "Content-Type": "application/json"}
    for _ in range(2):
        answer = httpx.post(endpoint, content=b'{"input_text": "x"}', headers=headers)
        assert answer.json() == {"id": "my-own-id"}
