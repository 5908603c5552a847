"""Logs: a JSON object a line on standard output, or text for people at a terminal."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

from pydantic_core import to_json

from project.settings import LogFormat, LogLevel

QUIET_LOGGERS = ("httpx", "huggingface_hub", "urllib3", "asyncio")


class JsonFormatter(logging.Formatter):
    """``time``, ``level``, ``logger``, ``message``, and what a call gave as ``fields``."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return to_json(line, serialize_unknown=True).decode()


class TextFormatter(logging.Formatter):
    """The same for people; what a caller sent cannot end a line or colour the terminal."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The line without an exception."""
        words = [super().formatMessage(record)]
        for name, value in _fields(record).items():
            text = str(value)
            words.append(f"{name}={text if text.isprintable() else ascii(text)}")
        return " ".join(words)


def configure(level: LogLevel, log_format: LogFormat) -> None:
    """Send the lines of every logger, uvicorn's too, to standard output."""
    text = log_format is LogFormat.TEXT
    if log_format is LogFormat.AUTO:
        text = sys.stdout.isatty()
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(TextFormatter() if text else JsonFormatter())
    logging.basicConfig(level=level.value.upper(), handlers=[handler], force=True)
    for name in QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # it logs what was sent


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields: dict[str, object] = getattr(record, "fields", {})
    return fields
