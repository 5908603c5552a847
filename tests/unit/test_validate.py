"""``python -m project.asyncapi validate``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from project.asyncapi import schema
from project.asyncapi.__main__ import main
from tests.helpers import ROOT
from tests.unit.cortex_files import API, CLUSTER, spoiled


@pytest.fixture
def api(tmp_path: Path) -> Path:
    """A cortex.yaml in which nothing is wrong."""
    path = tmp_path / "cortex.yaml"
    path.write_text(API, encoding="utf-8")
    return path


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    """A cluster.yaml in which nothing is wrong."""
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER, encoding="utf-8")
    return path


def validate(*files: Path) -> int:
    """Run the command in this process."""
    return main(["validate", *map(str, files)])


def test_defaults_are_filled_in(api: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The output is the file as Cortex reads it."""
    assert validate(api) == 0

    shown = yaml.safe_load(capsys.readouterr().out)[0]
    assert shown["autoscaling"]["target_in_flight"] == 4
    assert shown["autoscaling"]["window"] == "60s"
    assert shown["networking"] == {"endpoint": "/sentiment"}
    assert shown["pod"]["containers"][0]["liveness_probe"]["failure_threshold"] == 3


@pytest.mark.parametrize("text", [API, CLUSTER])
def test_output_is_a_file(tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints is valid, and means the same."""
    path = tmp_path / "file.yaml"
    path.write_text(text, encoding="utf-8")
    validate(path)
    first = capsys.readouterr().out

    path.write_text(first, encoding="utf-8")
    assert validate(path) == 0
    assert capsys.readouterr().out == first


def test_cluster_s_defaults(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Volumes and spot configurations are filled in, too."""
    assert validate(cluster) == 0

    spot, on_demand = yaml.safe_load(capsys.readouterr().out)["node_groups"]
    assert spot["spot_config"] == {
        "instance_distribution": ["c5.large", "c5d.large"],
        "on_demand_base_capacity": 0,
        "on_demand_percentage_above_base_capacity": 0,
        "instance_pools": 2,
    }
    assert (on_demand["instance_volume_iops"], on_demand["instance_volume_throughput"]) == (
        3000,
        125,
    )


@pytest.mark.parametrize(
    ("old", "new", "key", "value"),
    [
        ("subnet_visibility: public\nnat_gateway: none", "subnet_visibility: private",
         "nat_gateway", "single"),
        ("nat_gateway: none\n", "", "nat_gateway", "none"),
        ("cluster_name: sentiment\n", "", "cluster_name", "cortex"),
        ("iam_policy_arns: []\n", "", "iam_policy_arns",
         ["arn:aws:iam::aws:policy/AmazonS3FullAccess"]),
        ("tags: {team: text}", "telemetry: no", "telemetry", False),
        ("tags: {team: text}", "vpc_cidr: 10.1.0.0/16", "vpc_cidr", "10.1.0.0/16"),
        ("tags: {team: text}", "image_grafana: registry/grafana:7", "image_grafana",
         "registry/grafana:7"),
        ("api_load_balancer_type: nlb",
         "api_load_balancer_type: elb\nprometheus_instance_type: m3.large",
         "prometheus_instance_type", "m3.large"),
        ("availability_zones: [us-east-1a, us-east-1b]",
         "subnets: [{availability_zone: us-east-1a, subnet_id: a},"
         " {availability_zone: us-east-1b, subnet_id: b}]",
         "nat_gateway", "none"),
        ("availability_zones: [us-east-1a, us-east-1b]\n", "", "region", "us-east-1"),
        ("iam_policy_arns: []",
         "ssl_certificate_arn: arn:aws:acm:us-east-1:123456789012:certificate/a",
         "ssl_certificate_arn", "arn:aws:acm:us-east-1:123456789012:certificate/a"),
    ],
)  # fmt: skip
def test_cluster_value(
    cluster: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    key: str,
    value: object,
) -> None:
    """What is given, and what is left out."""
    cluster.write_text(spoiled(CLUSTER, old, new), encoding="utf-8")

    assert validate(cluster) == 0
    assert yaml.safe_load(capsys.readouterr().out)[key] == value


def test_io1_volume(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An io1 volume has 50 operations a second for each GB, up to 3000."""
    text = spoiled(CLUSTER, "max_instances: 5", "instance_volume_type: io1")
    cluster.write_text(text, encoding="utf-8")

    assert validate(cluster) == 0
    assert yaml.safe_load(capsys.readouterr().out)["node_groups"][0]["instance_volume_iops"] == 2500


def test_mistakes_go_to_stderr(
    api: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line each with file and line, of all files; and no configuration."""
    api.write_text(spoiled(API, "max_concurrency: 4", "max_concurrency: 0"), encoding="utf-8")
    cluster.write_text(spoiled(CLUSTER, "region: us-east-1", "region: mars"), encoding="utf-8")

    assert validate(api, cluster) == 1

    output = capsys.readouterr()
    first, second = output.err.splitlines()
    assert first == f"{api}:5: [0].pod.max_concurrency: must be at least 1, not 0"
    assert second.startswith(f"{cluster}:2: region: must be af-south-1, ap-east-1, ")
    assert output.out == ""


def test_node_groups_must_be_there(
    api: Path, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With both files, an API's node groups are looked up."""
    assert validate(api, cluster) == 0
    text = capsys.readouterr().out
    assert [type(each) for each in yaml.safe_load_all(text)] == [list, dict]

    api.write_text(spoiled(API, "node_groups: [cpu]", "node_groups: [cpu, gpu]"), encoding="utf-8")
    assert validate(api) == 0
    capsys.readouterr()
    assert validate(api, cluster) == 1
    message = f"{api}:21: [0].node_groups[1]: gpu is no node group of the cluster"
    assert capsys.readouterr().err.splitlines()[0] == message


@pytest.mark.parametrize(
    ("old", "new", "advice"),
    [
        ("{LEVEL: debug}", "{LEVEL: $(LVL)}",
         "9: advice: [0].pod.containers[0].env.LEVEL: $(LVL) stays as it is"),
        ("image: sentiment:1", "image: a\n        args: [$(CORTEX_PORT), $$(X), $(LEVEL), $(X)]",
         "9: advice: [0].pod.containers[0].args[3]: $(X) stays as it is"),
        ("image: sentiment:1", "image: a\n        command: [$(P)]",
         "9: advice: [0].pod.containers[0].command[0]: $(P) stays as it is"),
        ('[sleep, "1"]', "[kill, $(PID)]",
         "17: advice: [0].pod.containers[0].pre_stop.exec.command[1]: variables are not replaced"),
    ],
)  # fmt: skip
def test_advice_on_an_api(
    api: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, advice: str
) -> None:
    """A reference that Kubernetes leaves as it is is said, and is no mistake."""
    api.write_text(spoiled(API, old, new), encoding="utf-8")

    assert validate(api) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{api}:{advice}")


@pytest.mark.parametrize(
    ("lists", "advices"),
    [
        ("api_load_balancer_cidr_white_list: [10.0.0.0/8, 0.0.0.0/0]\n"
         "operator_load_balancer_cidr_white_list: [10.0.0.0/8]\n",
         ["19: advice: api_load_balancer_cidr_white_list: open to every address"]),
        ("api_load_balancer_cidr_white_list: ['2600:1f00::/24']\n"
         "operator_load_balancer_cidr_white_list: [203.0.113.7/32]\n",
         ["20: advice: operator_load_balancer_cidr_white_list: holds an address of examples"]),
    ],
)  # fmt: skip
def test_advice_on_a_cluster(
    cluster: Path, capsys: pytest.CaptureFixture[str], lists: str, advices: list[str]
) -> None:
    """Open lists and addresses of examples are said."""
    cluster.write_text(CLUSTER + lists, encoding="utf-8")

    assert validate(cluster) == 0
    for line, advice in zip(capsys.readouterr().err.splitlines(), advices, strict=True):
        assert line.startswith(f"{cluster}:{advice}")


def test_full_access_is_said(cluster: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cortex's default policy is more than an API needs."""
    cluster.write_text(spoiled(CLUSTER, "iam_policy_arns: []\n", ""), encoding="utf-8")

    assert validate(cluster) == 0
    assert "iam_policy_arns[0]: every API may read, change" in capsys.readouterr().err


def test_as_a_command(tmp_path: Path, api: Path) -> None:
    """It reads cortex.yaml here, starts nothing, and its exit code says whether it is good."""
    command = [sys.executable, "-m", "project.asyncapi", "validate"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    good = run()
    assert (good.returncode, good.stderr) == (0, "")
    assert good.stdout.startswith("# cortex.yaml, with Cortex's defaults\n- name: sentiment\n")
    bad = run("none.yaml")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert bad.stderr == "none.yaml: No such file or directory\n"
    assert "cortex.yaml or cluster.yaml" in run("--help").stdout
    assert api.exists()


def test_schemas_are_written(tmp_path: Path) -> None:
    """The command makes both files."""
    schema.main(tmp_path)

    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == schema.render()


@pytest.mark.parametrize(("name", "text"), schema.render().items())
def test_schema_is_current(name: str, text: str) -> None:
    """The committed schema is the models'; ``make schema`` writes it anew."""
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == text


def test_schema_holds_every_key() -> None:
    """Keys, limits, choices and defaults are there for an editor."""
    api: dict[str, Any] = json.loads(schema.render()["cortex.schema.json"])
    parts = api["$defs"]

    assert api["type"] == "array"
    assert parts["Pod"]["properties"]["max_concurrency"]["maximum"] == 100
    assert parts["Pod"]["properties"]["port"]["not"] == {"enum": [8888, 15000]}
    assert parts["ReadinessProbe"]["oneOf"] == [
        {"required": ["http_get"]},
        {"required": ["tcp_socket"]},
    ]
    assert "exec" not in parts["ReadinessProbe"]["properties"]
    assert parts["Networking"]["properties"]["endpoint"]["type"] == "string"
    assert all(not part["additionalProperties"] for part in parts.values())
    assert parts["Autoscaling"]["properties"]["window"]["default"] == "60s"
    described = [p for part in parts.values() for p in part["properties"].values()]
    assert all("description" in each for each in described)


MISTAKES_FOR_EDITORS = {
    "cortex": [
        ("max_concurrency: 4", "max_concurency: 4"),
        ("max_concurrency: 4", "max_concurrency: 101"),
        ("kind: AsyncAPI", "kind: RealtimeAPI"),
        ("mem: 64Mi", "mem: 512MB"),
        ("tcp_socket: {port: 8000}", "tcp_socket: {port: 8888}"),
        ("          http_get: {port: 8000, path: /healthcheck}\n", ""),
    ],
    "cluster": [
        ("region: us-east-1", "region: mars"),
        ("spot: true", "spot: 1"),
        ("subnet_visibility", "visibility"),
        ("cluster_name: sentiment", "cluster_name: a"),
    ],
}


@pytest.mark.parametrize(("name", "good"), [("cortex", API), ("cluster", CLUSTER)])
def test_schema_takes_and_refuses(tmp_path: Path, name: str, good: str) -> None:
    """An editor takes what is valid, and shows mistakes in keys, types, choices and limits."""
    broken = [spoiled(good, old, new) for old, new in MISTAKES_FOR_EDITORS[name]]
    for number, text in enumerate([good, *broken]):
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "check_jsonschema", "--output-format", "json"]
    files = [ROOT / f"{name}.yaml", *sorted(tmp_path.iterdir())]

    done = subprocess.run(
        [*command, "--schemafile", str(ROOT / f"docs/{name}.schema.json"), *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )

    refused = {Path(each["filename"]).name for each in json.loads(done.stdout)["errors"]}
    assert refused == {f"{number}.yaml" for number in range(1, len(broken) + 1)}
