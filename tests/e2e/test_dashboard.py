"""The dashboard and the alerts ask a real Prometheus for series that the service really has."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.helpers import ROOT, RuntimeProcess, free_port, wait_until
from tests.prometheus import TOOLS, Prometheus, missing, needs_prometheus

DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs/grafana/dashboard.json").read_text())
CONFIG = ROOT / "docs/prometheus/prometheus.yml"
ALERTS = ROOT / "docs/prometheus/alerts.yml"

PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
VARIABLES = {"$__rate_interval": "10s", "$api": ".*"}
BODIES = (
    {"input_text": ["i like you", "i hate you", "so long " * 600]},
    {"input_text": "i like you"},
    {"input_text": ""},
)


def expression(query: str) -> str:
    """What Grafana makes of a query."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    assert "$" not in query
    return query


def queries() -> list[Any]:
    """Every query of the dashboard."""
    return [
        pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
        for panel in PANELS
        for target in panel["targets"]
    ]


def alert_rules() -> list[dict[str, Any]]:
    """Every alert."""
    (group,) = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def alert_selectors() -> set[str]:
    """Every series that an alert asks for; those of failed requests are there once one failed."""
    text = "\n".join(rule["expr"] for rule in alert_rules())
    named = set(re.findall(r"\b(?:up|fastapi_model_\w+|cortex_async_\w+)\b(?:\{[^}]*\})?", text))
    return {name.replace('{status_code!="200"}', "") for name in named}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One that scrapes a running service, which is sent all kinds of requests."""
    folder = tmp_path_factory.mktemp("dashboard")
    port = free_port()
    cortex_yaml = (ROOT / "cortex.yaml").read_text(encoding="utf-8")
    (folder / "cortex.yaml").write_text(cortex_yaml.replace("8000", f"{port}"), encoding="utf-8")
    with contextlib.ExitStack() as stack:
        runtime = RuntimeProcess(folder, ())
        stack.callback(runtime.close)
        stack.enter_context(sending(runtime.url()))
        metrics = re.search(r"^Metrics: http://localhost:(\d+)", runtime.text(), re.MULTILINE)
        assert metrics
        config = write_config(folder, {"container:8000": port, "asyncapi:15000": int(metrics[1])})
        server = Prometheus(config, folder)
        stack.callback(server.close)
        yield server


def write_config(folder: Path, ports: dict[str, int]) -> Path:
    """The shipped configuration, with targets on this machine and no patience."""
    config = CONFIG.read_text(encoding="utf-8").replace("_interval: 5s", "_interval: 500ms")
    for target, port in ports.items():
        assert target in config
        config = config.replace(target, f"127.0.0.1:{port}")
    (folder / ALERTS.name).write_text(ALERTS.read_text(encoding="utf-8"), encoding="utf-8")
    path = folder / CONFIG.name
    path.write_text(config, encoding="utf-8")
    return path


@contextlib.contextmanager
def sending(url: str) -> Iterator[None]:
    """Requests of all kinds, as long as the context lasts."""
    stop = threading.Event()

    def send() -> None:
        with httpx.Client() as http:
            while not stop.wait(0.1):
                for body in BODIES:
                    http.post(url, json=body).raise_for_status()

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@needs_prometheus
@pytest.mark.parametrize("query", queries())
def test_no_panel_is_empty(prometheus: Prometheus, query: str) -> None:
    """Every query of the dashboard gets numbers from a service that is used."""
    wait_until(lambda: prometheus.finite(expression(query)))


@needs_prometheus
@pytest.mark.parametrize("selector", sorted(alert_selectors()))
def test_alerts_ask_for_what_there_is(prometheus: Prometheus, selector: str) -> None:
    """Every series that an alert looks at is there before anything is wrong."""
    wait_until(lambda: prometheus.finite(selector))


@needs_prometheus
def test_alerts_are_loaded(prometheus: Prometheus) -> None:
    """The configuration that is shipped names the file of alerts, and no alert is broken."""
    rules = prometheus.rules()

    assert len(rules) >= 10
    wait_until(lambda: all(rule["health"] == "ok" for rule in prometheus.rules()))


@needs_prometheus
def test_alerts_fire() -> None:
    """Every alert fires just beyond its limit and is silent within it, says promtool."""
    cases = ROOT / "tests/e2e/alerts.yml"

    done = subprocess.run(
        ["promtool", "test", "rules", str(cases)], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    fired = set(re.findall(r"alertname: (\w+)\n +eval_time", cases.read_text(encoding="utf-8")))
    assert fired == {rule["alert"] for rule in alert_rules()}


def test_panels_are_laid_out() -> None:
    """Every panel has a title, a description and a place of its own, 24 columns at most."""
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    for panel in PANELS:
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24
    for one, other in combinations([panel["gridPos"] for panel in DASHBOARD["panels"]], 2):
        assert any(
            first[axis] + first[size] <= second[axis]
            for first, second in ((one, other), (other, one))
            for axis, size in (("x", "w"), ("y", "h"))
        ), f"{one} and {other}"


def test_skips_only_without_prometheus() -> None:
    """The tests above are skipped if a tool is absent, with its name, and never in CI."""
    assert missing(lambda tool: f"/usr/bin/{tool}") is None
    for absent in TOOLS:
        reason = missing(lambda tool, absent=absent: None if tool == absent else tool)  # type: ignore[misc]
        assert reason == f"not on the path: {absent} (apt-get install prometheus)"
    assert not os.environ.get("CI") or missing() is None
