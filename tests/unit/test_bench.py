"""The measurements are of what is shipped."""

from __future__ import annotations

import asyncio
import math
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bench import IMAGE_ENV
from bench.load import HealthWatch, growth, percentile
from bench.targets import targets
from tests.dockerfile import read_dockerfile
from tests.helpers import DEADLINE, ROOT, serve, wait_until


def pins(path: Path) -> dict[str, str]:
    """Versions by package."""
    return dict(re.findall(r"^([\w-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE))


def test_peers_compute_with_our_versions() -> None:
    """What the peers share with the product has the version that the product is pinned to."""
    ours = pins(ROOT / "project/sentiment/requirements.txt")
    peers = pins(ROOT / "bench/requirements.txt")
    shared = {name: version for name, version in peers.items() if name in ours}

    assert shared == {name: ours[name] for name in shared}
    assert {"onnxruntime", "torch", "transformers", "fastapi", "uvicorn"} <= set(shared)


def test_ours_is_measured_as_its_image_runs_it() -> None:
    """What the image sets for speed, the measured container has as well."""
    service = [each for each in read_dockerfile(ROOT / "Dockerfile") if each.stage == "service"]
    words = {word for each in service if each.name == "ENV" for word in each.words()}

    assert {f"{name}={value}" for name, value in IMAGE_ENV.items()} == {
        word for word in words if word.startswith("GLIBC_TUNABLES=")
    }


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([3.0], 0.99, 3.0), (list(range(1, 101)), 0.99, 99), (list(range(40)), 0.5, 19)],
)
def test_percentile_is_by_rank(values: list[float], share: float, expected: float) -> None:
    """The 99th of 100 values is not the largest, which one stutter of the machine decides."""
    assert percentile(values, share) == expected


def test_health_that_is_no_200_took_for_ever() -> None:
    """A peer that answers its probes with errors is not quick."""

    async def unwell(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("no", status_code=503)(scope, receive, send)

    with serve(unwell) as url:
        watch = HealthWatch(f"{url}/healthcheck")
        watch.start()
        wait_until(lambda: watch._seconds)
        milliseconds = watch.milliseconds()

    assert set(milliseconds) == {math.inf}


@pytest.mark.parametrize("answers", [True, False])
def test_one_slow_health_check_holds_up_others(answers: bool) -> None:
    """A second without an answer is 20 questions without one, also if none comes at all."""
    asked, gate = threading.Event(), threading.Event()

    async def stuttering(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.set()
            await asyncio.to_thread(gate.wait, DEADLINE)
        await Response("well")(scope, receive, send)

    with serve(stuttering) as url:
        watch = HealthWatch(f"{url}/healthcheck")
        watch.start()
        wait_until(asked.is_set)
        first = time.monotonic()
        wait_until(lambda: time.monotonic() > first + 1)
        if answers:
            gate.set()
            wait_until(lambda: len(watch._seconds) > 20)
        else:
            threading.Timer(0.1, gate.set).start()
        milliseconds = watch.milliseconds()

    assert len(milliseconds) >= 20
    assert sum(each > 200 for each in milliseconds) >= 10


def test_health_that_is_not_there_does_not_end_the_watch() -> None:
    """A server that dies under load took for ever from then on, as often as it was asked."""

    async def well(scope: Scope, receive: Receive, send: Send) -> None:
        await Response("well")(scope, receive, send)

    with serve(well) as url:
        watch = HealthWatch(f"{url}/healthcheck")
        watch.start()
        wait_until(lambda: watch._seconds)
    wait_until(lambda: watch._seconds.count(math.inf) > 2)

    assert watch.milliseconds()[0] < math.inf


def test_growth_is_of_medians() -> None:
    """A single high value at the end is no growth, a rise of all is."""
    assert growth([500.0] * 30 + [200.0] * 150 + [300.0], minute=30) == 0
    assert growth([200.0] * 90 + [250.0] * 30, minute=30) == pytest.approx(0.25)


SERVERS = {"in process": 100.0, "ours": 95.0, "FastAPI + pipeline": 30.0,
           "LitServe + pipeline": 30.0, "null": 1e5}  # fmt: skip
WORST = "long mix", 64


def missed(cell: tuple[str, int] = WORST, **changed: float) -> list[str]:
    """The targets that a run misses, of which some figures are ``changed``.

    Args:
        cell: the mix and the callers at which servers, ``health`` and ``errors`` are changed.
    """

    def figure(server: str, mix: str, callers: int) -> dict[str, object]:
        here = changed if (mix, callers) == cell else {}
        return {
            "server": server, "mix": mix, "concurrency": callers,
            "rate": here.get(server, SERVERS[server]),
            "errors": here.get("errors", 0) if server == "ours" else 1,
            "health_ms": [here.get("health", 5.0)] * 50,
        }  # fmt: skip

    rates = {
        "bound": [changed.get("bound", 100.0)] * 3,
        "bound by ONNX Runtime's product": [changed.get("onnx_bound", 100.0)] * 3,
        "pipeline, one by one": [changed.get("pipeline", 10.0)] * 3,
        "ours, one by one": [40.0] * 3,
        "ours, stream": [95.0] * 3,
    }
    figures = [
        figure(server, mix, callers)
        for server in SERVERS
        for mix in ("dev", "long mix")
        for callers in (1, 8, 32, 64)
    ]
    start = {
        "server": "ours",
        "ready_seconds": [changed.get("start", 1.0)],
        "peak_mb": changed.get("peak", 300.0),
    }
    good = {"labels_differ": 0, "largest_difference": 1e-6}
    bad = {
        "labels_differ": changed.get("labels", 0),
        "largest_difference": changed.get("difference", 1e-6),
    }
    found = targets(
        {"rates": rates},
        {"figures": figures, "starts": [start]},
        {"ways": {"alone": good, "sorted batches": bad}},
    )
    return [each.what for each in found if not each.met]


def test_targets_are_met_or_not() -> None:
    """Each is missed by the one figure that is bad, and by nothing else."""
    assert missed() == []
    assert missed(labels=1) == ["labels other than the pipeline's"]
    assert missed(difference=2e-4) == ["difference to the pipeline, in probability"]
    assert missed(pipeline=21.0) == ["in process, one by one, over the pipeline"]
    assert missed(bound=110.0) == ["in process, a stream, over the bound"]
    assert missed(onnx_bound=110.0) == [
        "in process, a stream, over the bound by ONNX Runtime's product"
    ]
    for cell in (WORST, ("dev", 8)):
        assert missed(cell, ours=84.0) == ["of the rate in process, 8 to 64 callers"]
    assert missed(("dev", 1), ours=84.0) == []
    for cell in (WORST, ("dev", 1)):
        assert missed(cell, **{"FastAPI + pipeline": 42.0}) == ["over FastAPI + pipeline"]
        assert missed(cell, **{"LitServe + pipeline": 96.0}) == ["over LitServe + pipeline"]
        assert missed(cell, health=101.0) == ["/healthcheck under load, p99, ms"]
        assert missed(cell, errors=1) == ["errors under load"]
    assert missed(start=2.1) == ["seconds to ready"]
    assert missed(peak=351.0) == ["MB resident under this load, at most"]


def test_soak_ends_when_its_container_does(tmp_path: Path) -> None:
    """A container that does not become ready is an error, not a wait without end."""
    examples = tmp_path / "dev.tsv"
    examples.write_text("label\ttext\n1\ti like you\n", encoding="utf-8")

    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", examples],
        cwd=ROOT,
        env={**os.environ, "MODEL": str(tmp_path / "nothing")},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )

    assert done.returncode == 1
    assert "does not become ready" in done.stderr
