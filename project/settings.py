"""The container's settings, read from environment variables of the same names."""

from __future__ import annotations

from enum import StrEnum, unique

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from project.sentiment.options import BATCH_TOKENS, BackendName, OnLongText

METRIC_NAME_PART = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
"""What Prometheus allows as (a part of) a metric's name, less the colon."""


@unique
class LogLevel(StrEnum):
    """The least that is logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@unique
class LogFormat(StrEnum):
    """How a line of the log looks."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class Settings(BaseSettings):
    """Every setting has a default; the README has the table of them."""

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    model: str | None = Field(None, description="Hub id or folder; empty: the shipped weights")
    model_revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    backend: BackendName = Field(
        BackendName.AUTO, description="auto, onnx or transformers; auto: onnx if there is a graph"
    )
    threads: int | None = Field(
        None, ge=1, description="to compute on; empty: what the container's CPU quota allows"
    )
    on_long_text: OnLongText = Field(
        OnLongText.WINDOW,
        description="window, truncate or reject what the model cannot read at once",
    )
    max_windows: int = Field(64, ge=1, description="most windows of one text; the rest is not read")
    parity_tolerance: float = Field(
        1e-3, gt=0, description="largest difference in probability to the golden answers"
    )
    max_body_bytes: int = Field(
        10_000_000, ge=1, description="largest body of one request, also once inflated"
    )
    max_texts: int = Field(1_000, ge=1, description="most texts in one request")
    max_text_chars: int = Field(100_000, ge=1, description="longest text, in characters")
    max_waiting_requests: int = Field(
        256, ge=1, description="requests that wait for the model before new ones get a 503"
    )
    max_waiting_tokens: int = Field(
        1_000_000, ge=1, description="tokens that wait for the model before new requests get a 503"
    )
    request_timeout_seconds: float = Field(
        300.0, gt=0, description="for one request; after it the answer is a 504"
    )
    max_batch_seconds: float = Field(
        60.0, gt=0, description="for one batch; after it the process ends, to be started again"
    )
    batch_tokens: int = Field(
        BATCH_TOKENS, ge=1, description="largest batch, in tokens with padding"
    )
    errors_as_results: bool = Field(
        True, description="tell a request from the queue its own errors in a result, status 200"
    )
    drain_seconds: float = Field(
        1.0, ge=0, description="to go on taking requests after SIGTERM, which the queue gets too"
    )
    log_level: LogLevel = Field(LogLevel.INFO, description="debug, info, warning or error")
    log_format: LogFormat = Field(
        LogFormat.AUTO, description="json, text or auto: text on a terminal, else JSON"
    )
    enable_metrics: bool = Field(False, description="serve Prometheus metrics on /metrics")
    metrics_namespace: str = Field(
        "fastapi", pattern=METRIC_NAME_PART, description="first part of the metrics' names"
    )
    metrics_subsystem: str = Field(
        "model", pattern=METRIC_NAME_PART, description="second part of the metrics' names"
    )
