"""The metrics that Cortex's dashboards and autoscaler read."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from project.asyncapi.metrics import Metrics
from project.asyncapi.queue import RequestQueue
from project.asyncapi.sqlite import SQLiteStorage
from project.asyncapi.types import Request
from project.asyncapi.waiting import Signal
from tests.helpers import FakeClock

ONE = '{api_kind="AsyncAPI",api_name="one"}'


def scrape(metrics: Metrics, path: str = "/metrics") -> httpx.Response:
    """One GET, in an event loop of its own."""

    async def run() -> httpx.Response:
        async with client(metrics) as http:
            return await http.get(path)

    return asyncio.run(run())


def client(metrics: Metrics) -> httpx.AsyncClient:
    """Asks the app without a port."""
    return httpx.AsyncClient(transport=httpx.ASGITransport(metrics), base_url="http://metrics")


def samples(answer: httpx.Response) -> dict[str, float]:
    """The values by name and labels, which are put in order."""
    assert answer.status_code == 200
    values: dict[str, float] = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            series, _, value = line.rpartition(" ")
            name, brace, labels = series.partition("{")
            ordered = ",".join(sorted(labels.rstrip("}").split(",")))
            values[f"{name}{{{ordered}}}" if brace else name] = float(value)
    return values


def test_answers_are_counted_and_timed() -> None:
    """By API and status code, with Cortex's names and Go's buckets, and with nothing else."""
    metrics = Metrics()
    for status_code, seconds in ((200, 0.02), (200, 0.3), (500, 20.0)):
        metrics.observe("one", status_code, seconds)

    values = samples(scrape(metrics))

    ok = 'api_kind="AsyncAPI",api_name="one"'
    assert values[f'cortex_async_request_count{{{ok},status_code="200"}}'] == 2
    assert values[f'cortex_async_request_count{{{ok},status_code="500"}}'] == 1
    assert values[f'cortex_async_latency_sum{{{ok},status_code="200"}}'] == pytest.approx(0.32)
    assert values[f'cortex_async_latency_count{{{ok},status_code="500"}}'] == 1
    bucket = f"cortex_async_latency_bucket{{{ok}"
    assert values[f'{bucket},le="0.025",status_code="200"}}'] == 1
    assert values[f'{bucket},le="0.5",status_code="200"}}'] == 2
    assert values[f'{bucket},le="10.0",status_code="500"}}'] == 0
    assert values[f'{bucket},le="+Inf",status_code="500"}}'] == 1
    assert {series.partition("{")[0] for series in values} == {
        "cortex_async_request_count",
        "cortex_async_latency_bucket",
        "cortex_async_latency_count",
        "cortex_async_latency_sum",
    }


def test_depth_of_the_queue(tmp_path: Path) -> None:
    """Every scrape looks at the queues: waiting, in flight, both, and how old the next one is."""

    async def run() -> None:
        metrics = Metrics()
        clock = FakeClock()
        storage = SQLiteStorage(tmp_path / "one.sqlite", clock=clock)
        queue = RequestQueue(storage, Signal(), 100)
        metrics.add("one", queue)
        try:
            async with client(metrics) as http:
                assert samples(await http.get("/metrics"))[f"cortex_async_active{ONE}"] == 0
                for number in range(3):
                    await queue.send(Request(f"id-{number}", (), b"{}"))
                (delivery, _) = await queue.receive(2, 60)
                queue.begin(delivery)
                await queue.renew(delivery, 60)  # after which that is written
                clock.now += 7
                values = samples(await http.get("/metrics"))
        finally:
            await queue.close()
        assert values[f"cortex_async_queued{ONE}"] == 2
        assert values[f"cortex_async_in_flight{ONE}"] == 1
        assert values[f"cortex_async_active{ONE}"] == 3
        assert values[f"cortex_async_oldest_message_age_seconds{ONE}"] == 7

    asyncio.run(run())


def test_exposition_format() -> None:
    """The text is Prometheus's classic format, and a counter's name has no _total."""
    metrics = Metrics()
    metrics.observe("one", 200, 0.1)

    answer = scrape(metrics)

    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# TYPE cortex_async_request_count counter" in answer.text.splitlines()
    assert "_total" not in answer.text
    promtool = shutil.which("promtool")
    if promtool is not None:
        check = subprocess.run(
            [promtool, "check", "metrics"], input=answer.content, capture_output=True, check=False
        )
        assert b"error" not in check.stderr.lower()


def test_other_paths() -> None:
    """There is nothing else on the port."""
    assert scrape(Metrics(), "/").status_code == 404
