"""Log lines for machines and for people."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from project.asyncapi import logs


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Configures the root logger as if nobody had yet, until the test ends."""

    def run(level: str, format_name: str) -> None:
        root = logging.getLogger()
        monkeypatch.setattr(root, "handlers", [])
        monkeypatch.setattr(root, "level", root.level)
        logs.configure(level, format_name)

    return run


def test_json(configure: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line: the record, what the call gave as extra, and the exception."""
    configure("info", "json")
    try:
        Path("/nowhere/at/all").read_bytes()
    except OSError:
        logging.getLogger("some.where").exception(
            "%s\nand ü", "line", extra={"id": "id-1", "path": Path("x")}
        )
    logging.getLogger("some.where").debug("not seen")

    (text,) = capsys.readouterr().err.splitlines()
    line = json.loads(text)
    assert datetime.fromisoformat(line.pop("time")).utcoffset() is not None
    exception = line.pop("exception")
    assert exception.startswith("Traceback")
    assert "FileNotFoundError" in exception
    assert line == {
        "level": "error",
        "logger": "some.where",
        "message": "line\nand ü",
        "id": "id-1",
        "path": "x",
    }


def test_text(configure: Callable[[str, str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """The same for people."""
    configure("INFO", "text")
    logging.getLogger("some.where").info("sent", extra={"id": "id-1", "receives": 2})
    logging.getLogger("some.where").warning("alone")

    sent, alone = capsys.readouterr().err.splitlines()
    assert sent.endswith(" INFO some.where: sent [id=id-1 receives=2]")
    assert alone.endswith(" WARNING some.where: alone")


@pytest.mark.parametrize("terminal", [True, False])
def test_auto(
    terminal: bool,
    configure: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Text on a terminal, else JSON."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    configure("info", "auto")
    logging.getLogger("some.where").info("sent")

    assert capsys.readouterr().err.startswith("{") is not terminal
