"""Logs: a JSON object a line for machines, text for people at a terminal."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

FORMATS = ("auto", "json", "text")
_ENCODER = json.JSONEncoder(ensure_ascii=False, default=str)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, and whatever a call gave as ``extra``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _ENCODER.encode(line)


class TextFormatter(logging.Formatter):
    """The same for people: what a call gave as ``extra`` stands in brackets."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without an exception."""
        extra = " ".join(f"{name}={value}" for name, value in _extra(record).items())
        line = super().formatMessage(record)
        return f"{line} [{extra}]" if extra else line


def configure(level: str, format_name: str) -> None:
    """Send every logger's lines to standard error.

    Args:
        level: of logging, in any case.
        format_name: one of :data:`FORMATS`; auto is text on a terminal, else JSON.
    """
    # Three lines a request: what no format shows is not found out
    # (https://docs.python.org/3/howto/logging.html#optimization).
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    text = sys.stderr.isatty() if format_name == "auto" else format_name == "text"
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}
