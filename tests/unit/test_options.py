"""The runtime's command line: what is no value for an option is named, with the limit."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from project.asyncapi.__main__ import DESCRIPTORS, _allow_descriptors, main
from project.asyncapi.config import ConfigError
from project.asyncapi.replica import Placement
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("option", "value", "limit"),
    [
        ("--retention-days", "-1", "a number, 0.001 to 36500"),
        ("--retention-days", "0", "a number, 0.001 to 36500"),
        ("--retention-days", "nan", "a number, 0.001 to 36500"),
        ("--retention-days", "inf", "a number, 0.001 to 36500"),
        ("--retention-days", "week", "a number, 0.001 to 36500"),
        ("--max-payload-bytes", "0", "a whole number, 1 to 536870912"),
        ("--max-result-bytes", "1000000000", "a whole number, 1 to 536870912"),
        ("--max-queue-length", "1.5", "a whole number, at least 1"),
        ("--min-free-bytes", "-1", "a whole number, at least 0"),
        ("--max-receives", "0", "a whole number, at least 1"),
        ("--port", "65536", "a whole number, 0 to 65535"),
    ],
)
def test_number_out_of_bounds(
    option: str, value: str, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message has the option, what was given and what may be."""
    with pytest.raises(SystemExit):
        main([f"{option}={value}"])

    assert f"argument {option}: {value!r}: must be {limit}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "https://x:1",
        "x:8000",
        "http://:8000",
        "http://x:99999",
        "http://x:0",
        "http://x:port",
        "http://[::1",
        "http://x:1/path",
        "http://x:1?query",
        "http://me@x:1",
    ],
)
def test_container_url_that_is_none(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, not a traceback."""
    with pytest.raises(ConfigError, match="must be http://host:port, the port 1 to 65535"):
        Placement.at(url)
    arguments = ["--config", str(ROOT / "cortex.yaml"), "--storage", str(tmp_path)]

    assert main([*arguments, "--container-url", url]) == 1
    assert f"asyncapi: --container-url {url}: must be http://host:port" in capsys.readouterr().err


def test_container_url() -> None:
    """Host and port; a slash at the end is allowed."""
    assert Placement.at("http://container:8000/") == Placement(None, "container", 8000)
    assert Placement.at("http://container") == Placement(None, "container", 80)


def test_descriptors_are_allowed() -> None:
    """A shell's 1024 are no limit for clients, where more may be had."""
    before = _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        _allow_descriptors()
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

    assert soft == (DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS))
