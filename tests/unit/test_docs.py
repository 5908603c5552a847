"""What the documents say is so."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path

import pytest
import yaml

from project.monitoring import Metrics
from project.problems import Kind
from project.settings import Settings
from tests.dockerfile import read_dockerfile
from tests.helpers import ROOT

README = re.sub(r"https?://[^ )]+", "", (ROOT / "README.md").read_text(encoding="utf-8"))
HTTP = (ROOT / "docs/http.md").read_text(encoding="utf-8")
OPERATIONS = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


# Source: cortexlabs/cortex, docs/clients/cli.md of release 0.42.1.
CORTEX_COMMANDS = {
    "deploy": {"--env", "--force", "--yes", "--output"},
    "get": {"--env", "--watch", "--output", "--verbose"},
    "describe": {"--env", "--watch"},
    "logs": {"--env", "--yes", "--random-pod"},
    "delete": {"--env", "--force", "--keep-cache", "--output"},
    "cluster up": {"--configure-env", "--yes"},
    "cluster down": {"--config", "--name", "--region", "--yes", "--keep-aws-resources"},
}


def commands(program: str) -> list[list[str]]:
    """The words of every command of the README that begins with ``program``."""
    lines = re.findall(rf"^ +({program} .*)$", README, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_settings_table_is_complete() -> None:
    """Every setting is in the README, with its default and its description."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)? ?\| (.*?) \|$", README, re.MULTILINE)

    assert rows == [
        (name.upper(), "" if field.default is None else f"{field.default}", field.description)
        for name, field in Settings.model_fields.items()
    ]


def table(document: str, heading: str) -> list[list[str]]:
    """The rows of the first table after ``heading``, as cells; without its head."""
    lines = document[document.index(heading) :].splitlines()
    rows = itertools.dropwhile(lambda line: not line.startswith("|"), lines)
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in itertools.takewhile(lambda line: line.startswith("|"), rows)
    ]
    return cells[2:]


def test_problems_are_documented() -> None:
    """docs/http.md has every problem, with its status and its title."""
    assert table(HTTP, "### Errors") == [
        [f"`{kind.slug}`", str(kind.status), kind.title] for kind in Kind
    ]


def test_metrics_are_documented() -> None:
    """docs/http.md has every metric of the container, with its type and its help."""
    families = Metrics("n", "s").registry.collect()

    assert table(HTTP, "## GET /metrics") == [
        [
            f"`{each.name.removeprefix('n_s_')}{'_total' if each.type == 'counter' else ''}`"
            f" ({each.type})",
            each.documentation,
        ]
        for each in families
    ]


def test_named_files_exist() -> None:
    """Every file and folder of the project that the README names is there."""
    files = re.findall(r"(?:[\w.-]+/)*[\w-]+\.(?:py|yaml)", README)
    named = {*files, *re.findall(r"(?:project|tests|bench)/[\w/.]+", README)}

    places = (ROOT, ROOT / "project")
    missing = {name for name in named if not any((place / name).exists() for place in places)}
    assert missing == set()
    assert len(named) >= 10


def test_make_targets_exist() -> None:
    """Every ``make`` command of the README is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"make ([a-z]+)", README))
    assert named
    assert named <= targets


def test_cortex_commands_exist() -> None:
    """Every ``cortex`` command of the README is one of Cortex's, with flags that it has."""
    seen = set()
    for _, *words in commands("cortex"):
        name = " ".join(words[: 2 if words[0] == "cluster" else 1])
        seen.add(name)
        assert {word for word in words if word.startswith("-")} <= CORTEX_COMMANDS[name]
    assert seen == set(CORTEX_COMMANDS)


def test_docker_commands_fit() -> None:
    """Every file, stage and argument that a ``docker build`` names is there."""
    dockerfile = read_dockerfile(ROOT / "Dockerfile")
    stages = {each.stage for each in dockerfile}
    arguments = {each.value.partition("=")[0] for each in dockerfile if each.name == "ARG"}
    builds = [words for words in commands("docker") if words[1] == "build"]

    assert len(builds) >= 3
    for words in builds:
        options = dict(itertools.pairwise(words))
        assert (ROOT / options.get("-f", "Dockerfile")).is_file()
        assert options.get("--target", "service") in stages
        assert (ROOT / words[-1]).is_dir()
    for name in re.findall(r"--build-arg (\w+)", README + OPERATIONS):
        assert name in arguments


def test_every_alert_is_explained() -> None:
    """The operations page has a heading for each alert, and for no other."""
    rules = yaml.safe_load((ROOT / "docs/prometheus/alerts.yml").read_text(encoding="utf-8"))
    section = re.split(r"^## ", OPERATIONS, flags=re.MULTILINE)
    (alerts,) = [text for text in section if text.startswith("Alerts")]

    explained = re.findall(r"^### (\w+)$", alerts, re.MULTILINE)
    assert explained == [rule["alert"] for rule in rules["groups"][0]["rules"]]


def test_named_panels_exist() -> None:
    """A panel that the operations page names in italics is on the dashboard."""
    dashboard = (ROOT / "docs/grafana/dashboard.json").read_text(encoding="utf-8")

    named = set(re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", OPERATIONS))
    assert named
    assert {name for name in named if f'"title": "{name}"' not in dashboard} == set()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link is to a file, and its anchor to a heading there."""
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", path.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


def anchors(text: str) -> set[str]:
    """GitHub's names for the headings of a document."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
