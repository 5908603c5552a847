"""What the documents say is so."""

from __future__ import annotations

import re

from project.settings import Settings
from tests.helpers import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_settings_table_is_complete() -> None:
    """Every setting is in the README, with its default and its description."""
    rows = re.findall(r"^\| `([A-Z_]+)` \| (?:`(.*?)`)? ?\| (.*?) \|$", README, re.MULTILINE)

    assert rows == [
        (name.upper(), "" if field.default is None else f"{field.default}", field.description)
        for name, field in Settings.model_fields.items()
    ]


def test_named_files_exist() -> None:
    """Every file and folder of the project that the README names is there."""
    named = set(re.findall(r"(?:project/[\w/.]+|[\w]+\.(?:py|yaml))", README))
    top_level = {name for name in named if "/" in name or (ROOT / name).exists()}
    inside = {f"project/{name}" for name in named - top_level}

    missing = {name for name in top_level | inside if not (ROOT / name).exists()}
    assert missing == set()
    assert len(top_level) >= 5


def test_make_targets_exist() -> None:
    """Every ``make`` command of the README is a target."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"make ([a-z]+)", README))
    assert named
    assert named <= targets
