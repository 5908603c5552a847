"""Prometheus metrics of the container, named as ``cortex.yaml`` asks."""

from __future__ import annotations

from fastapi import FastAPI
from prometheus_client import CollectorRegistry
from prometheus_fastapi_instrumentator import Instrumentator

from project.settings import Settings

METRICS_PATH = "/metrics"


def expose_metrics(app: FastAPI, settings: Settings) -> None:
    """Measure every request to ``app`` and serve the figures on ``/metrics``."""
    # A registry of its own: two apps in one process must not share their counters.
    instrumentator = Instrumentator(excluded_handlers=[METRICS_PATH], registry=CollectorRegistry())
    instrumentator.instrument(
        app,
        metric_namespace=settings.metrics_namespace,
        metric_subsystem=settings.metrics_subsystem,
    )
    instrumentator.expose(app, endpoint=METRICS_PATH, include_in_schema=False)
