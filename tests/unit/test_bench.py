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
from bench.targets import Target, targets
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


def test_one_slow_health_check_holds_up_others() -> None:
    """Half a second without an answer is ten questions without one, not one slow sample."""
    gate = threading.Event()
    gate.set()

    async def stuttering(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.to_thread(gate.wait, DEADLINE)
        await Response("well")(scope, receive, send)

    with serve(stuttering) as url:
        gate.clear()
        started = time.monotonic()
        watch = HealthWatch(f"{url}/healthcheck")
        watch.start()
        wait_until(lambda: time.monotonic() > started + 0.5)
        gate.set()
        wait_until(lambda: len(watch._seconds) > 10)
        milliseconds = watch.milliseconds()

    assert sum(each > 200 for each in milliseconds) >= 5
    assert milliseconds[0] > milliseconds[1] > milliseconds[4]


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


def measured(**changed: float) -> dict[str, Target]:
    """The targets of a run that meets them all, but for what is ``changed``."""
    value = {
        "pipeline": 10.0, "bound": 100.0, "callers": 95.0, "peer": 30.0, "health": 5.0,
        "start": 1.0, "peak": 300.0, "difference": 1e-6, "labels": 0, **changed,
    }  # fmt: skip
    rates = {
        "bound": [value["bound"]] * 3,
        "bound by ONNX Runtime's product": [value["bound"]] * 3,
        "pipeline, one by one": [value["pipeline"]] * 3,
        "ours, one by one": [40.0] * 3,
        "ours, stream": [95.0] * 3,
    }
    servers = {"in process": 100.0, "ours": value["callers"], "FastAPI + pipeline": 30.0,
               "LitServe + pipeline": value["peer"], "null": 1e5}  # fmt: skip
    figures = [
        {"server": server, "mix": mix, "concurrency": callers, "rate": rate,
         "health_ms": [value["health"]] * 50}
        for server, rate in servers.items()
        for mix in ("dev", "long mix")
        for callers in (1, 8, 32, 64)
    ]  # fmt: skip
    start = {"server": "ours", "ready_seconds": [value["start"]], "peak_mb": value["peak"]}
    parity = {
        "ways": {
            "alone": {
                "labels_differ": value["labels"],
                "largest_difference": value["difference"],
            }
        }
    }
    found = targets({"rates": rates}, {"figures": figures, "starts": [start]}, parity)
    return {each.what: each for each in found}


def test_targets_are_met_or_not() -> None:
    """Each is missed by what it is about, and by nothing else."""
    assert all(each.met for each in measured().values())

    def missed(**changed: float) -> list[str]:
        return [what for what, each in measured(**changed).items() if not each.met]

    assert missed(labels=1) == ["labels other than the pipeline's"]
    assert missed(difference=2e-4) == ["difference to the pipeline, in probability"]
    assert missed(pipeline=21.0) == ["in process, one by one, over the pipeline"]
    assert missed(bound=110.0) == [
        "in process, a stream, over the bound",
        "in process, a stream, over the bound by ONNX Runtime's product",
    ]
    assert missed(callers=84.0) == ["of the rate in process, 8 to 64 callers"]
    assert missed(callers=60.0)[1:] == ["over FastAPI + pipeline"]
    assert missed(peer=96.0) == ["over LitServe + pipeline"]
    assert missed(health=101.0) == ["/healthcheck under load, p99, ms"]
    assert missed(start=2.1) == ["seconds to ready"]
    assert missed(peak=351.0) == ["MB resident, at most"]


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
