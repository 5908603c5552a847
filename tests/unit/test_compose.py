"""compose.yaml is valid, and what its services say of each other is true."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.dockerfile import read_dockerfile
from tests.helpers import ROOT

COMPOSE = ROOT / "compose.yaml"
CONTENT = yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = CONTENT["services"]
NAMES = pytest.mark.parametrize("name", list(SERVICES))
OTHERS = ("docs/prometheus/prometheus.yml", "docs/grafana/provisioning/datasources/prometheus.yml")


MISTAKES = {
    "depends_on": "depends_on:\n      container: {conditions: service_healthy}",
    "healthchek": "healthchek: {test: [CMD, true]}",
    "ports": 'ports: {"8888": 8888}',
    "stop_grace_period": "stop_grace_period: 60",
}


def test_follows_the_schema(tmp_path: Path) -> None:
    """It is what the Compose specification allows; mistakes beside it are found, and named."""
    for key, wrong in MISTAKES.items():
        text = f"services:\n  asyncapi:\n    image: sentiment\n    {wrong}\n"
        (tmp_path / f"{key}.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    files = [COMPOSE, *sorted(tmp_path.iterdir())]

    done = subprocess.run(
        [*command, "--output-format", "json", *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    report = json.loads(done.stdout)
    found: dict[str, str] = {}
    for error in report["errors"]:
        key = Path(error["filename"]).stem
        found[key] = found.get(key, "") + json.dumps(error)
    assert (set(found), report["parse_errors"]) == (set(MISTAKES), [])
    assert not [key for key, said in found.items() if key not in said.replace(f"{key}.yaml", "")]


@NAMES
def test_images_are_pinned(name: str) -> None:
    """An image is built here, by one service, or has the number of a version."""
    built = [service["image"] for service in SERVICES.values() if "build" in service]
    image = SERVICES[name]["image"]

    assert built.count(image) == 1 or re.search(r":v?\d+\.\d+\.\d+$", image)


@NAMES
def test_ports_stay_on_this_machine(name: str) -> None:
    """What has no password is published on the loopback address alone."""
    published = [port.rpartition(":")[0] for port in SERVICES[name]["ports"]]

    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+", address) for address in published)


@NAMES
def test_volumes_are_there(name: str) -> None:
    """A mounted file or folder is in the project, a volume is declared."""
    for mount in SERVICES[name].get("volumes", []):
        source = mount.split(":")[0]
        assert (ROOT / source).exists() if source.startswith(".") else source in CONTENT["volumes"]


@NAMES
def test_waits_for_what_is_checked(name: str) -> None:
    """A service that others wait for says whether it is healthy."""
    image = {each.name for each in read_dockerfile(ROOT / "Dockerfile") if each.stage == "service"}
    for other, how in SERVICES[name].get("depends_on", {}).items():
        assert how == {"condition": "service_healthy"}
        assert "healthcheck" in SERVICES[other] or "HEALTHCHECK" in image


def test_services_find_each_other() -> None:
    """Every address that a file names is a service, on a port where it listens."""
    listening = {"asyncapi:15000"} | {
        f"{name}:{port.rpartition(':')[2]}"
        for name, service in SERVICES.items()
        for port in service["ports"]
    }
    text = COMPOSE.read_text(encoding="utf-8") + "".join(
        (ROOT / path).read_text(encoding="utf-8") for path in OTHERS
    )

    named = set(re.findall(r"\b(?:{}):\d{{4,5}}\b".format("|".join(SERVICES)), text))
    assert named >= {"container:8000", "asyncapi:15000", "prometheus:9090"}
    assert named <= listening


def test_dashboard_is_provisioned() -> None:
    """Grafana finds the data source and the dashboard where they are mounted."""
    mounts = dict(each.split(":")[:2] for each in SERVICES["grafana"]["volumes"])
    folder = mounts["./docs/grafana/provisioning"]
    assert folder == "/etc/grafana/provisioning"
    (provider,) = yaml.safe_load(
        (ROOT / "docs/grafana/provisioning/dashboards/sentiment.yml").read_text(encoding="utf-8")
    )["providers"]

    dashboard = mounts["./docs/grafana/dashboard.json"]
    assert Path(dashboard).parent == Path(provider["options"]["path"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == dashboard
