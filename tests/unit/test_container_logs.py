"""The container's log lines: JSON for machines, text for people."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from project import logs
from project.settings import LogFormat, LogLevel

FIELDS = {"id": "line\nbreak", "status": 200, "odd": object()}


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, which is put back as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """One object a line, whatever is in it, on standard output."""
    logs.configure(LogLevel.INFO, LogFormat.AUTO)
    logging.getLogger("a.b").info("text %s", 1, extra={"fields": FIELDS})
    logging.getLogger("a.b").debug("not shown")
    logging.getLogger("a.b").error("failed", exc_info=ValueError("broken"))

    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("info", "a.b", "text 1")
    assert (first["id"], first["status"]) == ("line\nbreak", 200)
    assert first["time"].endswith("+00:00")
    assert "ValueError: broken" in second["exception"]


def test_text(root: logging.Logger, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for people, which nobody's request can break."""
    logs.configure(LogLevel.WARNING, LogFormat.TEXT)
    logging.getLogger("a").info("not shown")
    logging.getLogger("a").warning("request", extra={"fields": FIELDS})

    (line,) = capsys.readouterr().out.splitlines()
    assert "WARNING request id='line\\nbreak' status=200" in line
