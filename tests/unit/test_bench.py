"""The measurements are of what is shipped."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from bench import IMAGE_ENV
from bench.load import HealthWatch, percentile
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
