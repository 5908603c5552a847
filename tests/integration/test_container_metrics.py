"""The container's own metrics: what they count, how they are named, who can make new ones."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from project.app import create_app
from project.problems import Kind
from project.settings import Settings
from tests.helpers import FakeClassifier, serve, wait_until


@pytest.fixture
def url(classifier: FakeClassifier) -> Iterator[str]:
    """A container that is ready and measured."""
    settings = Settings(
        enable_metrics=True, metrics_namespace="text", metrics_subsystem="mood", max_texts=4
    )
    with serve(create_app(settings, lambda _: classifier)) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").status_code == 200)
        yield url


def scrape(url: str) -> dict[str, float]:
    """The values by series, without the names' common start."""
    lines = httpx.get(f"{url}/metrics").raise_for_status().text.splitlines()
    samples = [line.rpartition(" ") for line in lines if not line.startswith("#")]
    assert all(series.startswith("text_mood_") for series, _, _ in samples)
    return {series.removeprefix("text_mood_"): float(value) for series, _, value in samples}


def test_inference_is_counted(url: str) -> None:
    """Waits, batches, tokens with and without padding, texts by label, problems by kind."""
    before = scrape(url)
    httpx.post(url, json=["a" * 10, ""])
    httpx.post(url, json={"input_text": "b" * 1001, "on_long": "reject"})
    after = scrape(url)

    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert grown["tokens_total"] == 10
    assert grown["batch_tokens_sum"] == 10
    assert grown["batch_windows_count"] == grown["inference_seconds_count"] == 1
    assert grown["queue_wait_seconds_count"] == 1
    assert grown['texts_total{label="POSITIVE"}'] == 1
    assert grown['long_texts_total{outcome="rejected"}'] == 1
    assert grown['errors_total{kind="empty-text"}'] == 1
    assert grown['errors_total{kind="text-too-long"}'] == 1
    assert after['model_info{backend="fake",model="fake",revision="0123456789ab"}'] == 1
    assert 0 < after["start_to_ready_seconds"] < 3600


def test_what_waits_is_shown(url: str, classifier: FakeClassifier) -> None:
    """Requests and tokens that wait or are computed, at the moment of the scrape."""
    classifier.gate.clear()
    with httpx.Client(timeout=0.3) as client, pytest.raises(httpx.ReadTimeout):
        client.post(url, json=["abc", "de"])
    busy = scrape(url)
    classifier.gate.set()
    wait_until(lambda: scrape(url)["requests_in_flight"] == 0)

    assert (busy["requests_waiting"], busy["tokens_waiting"]) in {(1, 5), (0, 0)}
    assert scrape(url)["tokens_waiting"] == 0


def test_callers_make_no_series(url: str) -> None:
    """Whatever they send: paths, methods, ids and texts of their own change values only."""

    def send(client: httpx.Client, number: int) -> None:
        client.get(f"{url}/nothing-{number}")
        client.post(f"{url}/docs/{number}?input_text={number}")
        client.post(url, json=f"text {number}", headers={"X-Cortex-Request-ID": f"id-{number}"})
        client.request("PUT" if number else "DELETE", url)
        client.request("PROPFIND" if number else "PATCH", f"{url}/{number}")

    with httpx.Client() as client:
        send(client, 0)
        before = set(scrape(url))
        for number in range(1, 20):
            send(client, number)

    assert set(scrape(url)) == before


def test_every_problem_has_a_series(url: str) -> None:
    """From the start, for a rate needs the zero before the first."""
    series = scrape(url)

    assert {f'errors_total{{kind="{kind.slug}"}}' for kind in Kind} <= set(series)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not on the path")
def test_promtool_has_no_complaint(url: str) -> None:
    """Names and units are by Prometheus's conventions."""
    httpx.post(url, json=["a", ""])

    done = subprocess.run(
        ["promtool", "check", "metrics"],
        input=httpx.get(f"{url}/metrics").content,
        capture_output=True,
        check=False,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
