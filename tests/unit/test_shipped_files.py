"""The project's own cortex.yaml and cluster.yaml, and what docs/cortex.md says of them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.asyncapi.__main__ import main
from project.asyncapi.cluster_spec import Cluster, Subnet
from project.asyncapi.config import read_config
from project.asyncapi.files import read_file
from project.asyncapi.node_groups import NodeGroup, SpotConfig
from project.asyncapi.units import parse_quantity
from tests.helpers import ROOT

API_FILE, CLUSTER_FILE = ROOT / "cortex.yaml", ROOT / "cluster.yaml"
DOCS = (ROOT / "docs" / "cortex.md").read_text(encoding="utf-8")
CLUSTER_TEXT = CLUSTER_FILE.read_text(encoding="utf-8")

EXAMPLES = {
    "probed": """
- name: hello
  kind: AsyncAPI
  pod:
    port: 8080
    containers:
    - name: api
      image: quay.io/team/hello-cpu:latest
      readiness_probe:
        http_get:
          path: "/healthz"
          port: 8080
      compute:
        cpu: 200m
        mem: 128Mi
""",
    "fractions": """
- name: generator
  kind: AsyncAPI
  pod:
    port: 8080
    containers:
    - name: api
      image: quay.io/team/generator-cpu:latest
      readiness_probe: {http_get: {path: "/healthz", port: 8080}}
      compute: {cpu: 1, mem: 2.5Gi}
""",
    "gpu": """
- name: generator
  kind: AsyncAPI
  pod:
    port: 8080
    containers:
    - name: api
      image: quay.io/team/generator-gpu:latest
      env:
        TARGET_DEVICE: "cuda"
      compute: {cpu: 1, gpu: 1, mem: 512Mi}
""",
}
"""Of the kind of Cortex's own, which are in its repository under test/apis/async."""


def keys(value: Any) -> Iterator[str]:  # noqa: ANN401 -- any YAML value
    """Every key that leads to a value, not to further keys."""
    if isinstance(value, list):
        for inner in value:
            yield from keys(inner)
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from list(keys(inner)) or [key]


def test_nothing_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """Both are valid, together; and the addresses of examples are all that is advised upon."""
    assert main(["validate", str(API_FILE), str(CLUSTER_FILE)]) == 0

    advice = capsys.readouterr().err.splitlines()
    assert len(advice) == 2
    assert all("white_list: holds an address of examples" in line for line in advice)


@pytest.mark.parametrize("text", EXAMPLES.values(), ids=EXAMPLES)
def test_examples_are_valid(tmp_path: Path, text: str) -> None:
    """Files as Cortex's own tests deploy them are taken."""
    path = tmp_path / "cortex.yaml"
    path.write_text(text, encoding="utf-8")

    assert read_config(path)[0].kind == "AsyncAPI"


@pytest.mark.parametrize("path", [API_FILE, CLUSTER_FILE], ids=lambda path: path.name)
def test_editors_find_the_schema(path: Path) -> None:
    """The first line names it, by a path from the file."""
    first = path.read_text(encoding="utf-8").splitlines()[0]
    name = first.removeprefix("# yaml-language-server: $schema=")

    assert name == f"docs/{path.stem}.schema.json"
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("path", [API_FILE, CLUSTER_FILE], ids=lambda path: path.name)
def test_every_value_has_its_reason(path: Path) -> None:
    """docs/cortex.md has a row for each key that is set."""
    first_columns = re.findall(r"^\| (`.*?`) \|", DOCS, re.MULTILINE)
    explained = {name for column in first_columns for name in re.findall(r"[\w.]+", column)}
    explained |= {name.rpartition(".")[2] for name in explained}

    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    env = set(values[0]["pod"]["containers"][0]["env"]) if isinstance(values, list) else set()
    handlers = {"path", "command"}  # of the probes and the hook, which have rows of their own
    assert set(keys(values)) - env - handlers - {"service"} <= explained


def test_every_cluster_key_is_there() -> None:
    """Each key of Cortex's cluster configuration is in the file, set or commented out."""
    named = set(re.findall(r"^[ #-]*([a-z_]+):", CLUSTER_TEXT, re.MULTILINE))

    for model in (Cluster, NodeGroup, SpotConfig, Subnet):
        assert set(model.model_fields) <= named, model


def test_commented_defaults_are_the_defaults() -> None:
    """What is commented out with a value changes nothing when it is put in."""
    commented = dict(re.findall(r"^# (image_\w+): (\S+)$", CLUSTER_TEXT, re.MULTILINE))
    defaults = Cluster(region="us-east-1").model_dump()

    assert len(commented) == 28
    assert commented == {name: defaults[name] for name in commented}
    volume = NodeGroup(name="a", instance_type="c5.large").with_defaults().model_dump()
    for name in ("instance_volume_iops", "instance_volume_throughput"):
        assert re.findall(rf"^ +# {name}: (\d+)", CLUSTER_TEXT, re.MULTILINE) == [f"{volume[name]}"]


def test_no_more_access_than_needed() -> None:
    """The container never calls AWS, so that it needs no policy beside Cortex's own."""
    cluster = read_file(CLUSTER_FILE).content

    assert isinstance(cluster, Cluster)
    assert cluster.iam_policy_arns == []
    assert cluster.subnet_visibility == "private"


def test_spot_has_an_on_demand_backup() -> None:
    """Spot instances are filled first, and one on demand is always there."""
    cluster = read_file(CLUSTER_FILE).content
    assert isinstance(cluster, Cluster)
    spot, backup = cluster.node_groups or []

    assert (spot.spot, backup.spot) == (True, False)
    assert spot.priority > backup.priority
    assert backup.min_instances >= 1
    assert (
        spot.max_instances + backup.max_instances
        == read_config(API_FILE)[0].autoscaling.max_replicas
    )


def test_one_replica_fits_an_instance() -> None:
    """On two cores and 4 GiB there is room for one replica and Cortex's pods, and not for two."""
    (api,) = read_config(API_FILE)
    compute = api.pod.containers[0].compute
    assert compute.cpu is not None
    assert compute.mem is not None

    cores = 2 - parse_quantity("300m") - parse_quantity("260m")
    replica = parse_quantity(compute.cpu) + parse_quantity("100m")
    assert replica <= cores < 2 * replica
    memory = parse_quantity("4Gi") - parse_quantity("800Mi") - parse_quantity("350Mi")
    assert parse_quantity(compute.mem) + parse_quantity("100Mi") <= memory


def test_values_that_the_contract_asks_for() -> None:
    """Batches can form, readiness is quick, and the container outlives the dequeuer."""
    (api,) = read_config(API_FILE)
    container = api.pod.containers[0]

    assert api.pod.max_concurrency > 1
    assert container.readiness_probe is not None
    assert container.readiness_probe.period_seconds == 1
    assert container.readiness_probe.failure_threshold == 1
    assert container.liveness_probe is not None
    assert container.liveness_probe.initial_delay_seconds >= 10
    assert container.pre_stop is not None
