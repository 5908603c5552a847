"""The container's settings, read from environment variables of the same names."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

METRIC_NAME_PART = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
"""What Prometheus allows as (a part of) a metric's name, less the colon."""


class Settings(BaseSettings):
    """Every setting has a default; the README has the table of them."""

    model_config = SettingsConfigDict(frozen=True, protected_namespaces=())

    model: str | None = Field(None, description="Hub id or folder; empty: the shipped weights")
    model_revision: str | None = Field(None, description="branch, tag or commit of a Hub id")
    max_body_bytes: int = Field(10_000_000, ge=1, description="largest body of one request")
    max_texts: int = Field(1_000, ge=1, description="most texts in one request")
    max_text_chars: int = Field(100_000, ge=1, description="longest text, in characters")
    max_waiting_requests: int = Field(
        256, ge=1, description="requests that wait for the model before new ones get a 503"
    )
    enable_metrics: bool = Field(False, description="serve Prometheus metrics on /metrics")
    metrics_namespace: str = Field(
        "fastapi", pattern=METRIC_NAME_PART, description="first part of the metrics' names"
    )
    metrics_subsystem: str = Field(
        "model", pattern=METRIC_NAME_PART, description="second part of the metrics' names"
    )
