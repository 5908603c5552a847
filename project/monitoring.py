"""Prometheus metrics of the container, named as ``cortex.yaml`` asks."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum, unique
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_fastapi_instrumentator import Instrumentator
from prometheus_fastapi_instrumentator import metrics as instrumentation

from project.problems import Kind
from project.sentiment.prediction import Classifier, Prediction
from project.settings import Settings

METRICS_PATH = "/metrics"
METHODS = frozenset({"GET", "HEAD", "OPTIONS", "POST"})

WAIT_BUCKETS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
INFERENCE_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
WINDOW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
TOKEN_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


@unique
class LongText(StrEnum):
    """What was done with a text that the model cannot read at once."""

    WINDOWED = "windowed"
    TRUNCATED = "truncated"
    REJECTED = "rejected"


IMPORTED = time.monotonic()


def process_age_seconds() -> float:
    """Since the process was started, by the kernel's count where there is one (proc(5))."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        started = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - started
    except (OSError, AttributeError, ValueError, IndexError):
        return time.monotonic() - IMPORTED


class Metrics:
    """Every series of the container; an observer of its batcher.

    All are there, with zeros, before the first request: a rate needs two values.

    Attributes:
        registry: of its own, for two apps in one process must not share their counters.
    """

    def __init__(self, namespace: str, subsystem: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        names: dict[str, Any] = {
            "namespace": namespace, "subsystem": subsystem, "registry": self.registry,
        }  # fmt: skip
        self._queue_wait = Histogram(
            "queue_wait_seconds", "Time that a window of a text waited for a worker.",
            buckets=WAIT_BUCKETS, **names,
        )  # fmt: skip
        self._inference = Histogram(
            "inference_seconds", "Time that the model took for a batch.",
            buckets=INFERENCE_BUCKETS, **names,
        )  # fmt: skip
        self._windows = Histogram(
            "batch_windows", "Windows of texts in a batch.", buckets=WINDOW_BUCKETS, **names
        )
        self._padded = Histogram(
            "batch_tokens", "Tokens in a batch, padding included.", buckets=TOKEN_BUCKETS, **names
        )
        self._tokens = Counter("tokens", "Tokens inferred, padding not included.", **names)
        self._texts = Counter("texts", "Texts classified, by label.", ["label"], **names)
        long = Counter("long_texts", "Texts longer than the model reads at once.",
                       ["outcome"], **names)  # fmt: skip
        self._long = {outcome: long.labels(outcome) for outcome in LongText}
        failed = Counter("errors", "Requests, or texts of a list, that got an error.",
                         ["kind"], **names)  # fmt: skip
        self._errors = {kind: failed.labels(kind.slug) for kind in Kind}
        self._requests_waiting = Gauge(
            "requests_waiting", "Requests that wait for the model or are computed.", **names
        )
        self._tokens_waiting = Gauge(
            "tokens_waiting", "Tokens that wait for the model or are computed.", **names
        )
        self.in_flight = Gauge("requests_in_flight", "Requests to classify not answered.", **names)
        self._model = Gauge("model_info", "The model that answers; always 1.",
                            ["model", "revision", "backend"], **names)  # fmt: skip
        self._was_ready = False
        self._start = Gauge(
            "start_to_ready_seconds", "From the start of the process to the first readiness.",
            **names,
        )  # fmt: skip

    def taken(self, waited: Sequence[float]) -> None:
        """See :class:`~project.batching.Observer`."""
        for seconds in waited:
            self._queue_wait.observe(seconds)

    def inferred(self, lengths: Sequence[int], seconds: float) -> None:
        """See :class:`~project.batching.Observer`."""
        self._inference.observe(seconds)
        self._windows.observe(len(lengths))
        self._padded.observe(len(lengths) * max(lengths))
        self._tokens.inc(sum(lengths))

    def classified(self, prediction: Prediction) -> None:
        """A text was answered."""
        self._texts.labels(prediction.label).inc()
        if prediction.truncated:
            self._long[LongText.TRUNCATED].inc()
        elif prediction.windows > 1:
            self._long[LongText.WINDOWED].inc()

    def too_long(self) -> None:
        """A text was refused because the model cannot read it at once."""
        self._long[LongText.REJECTED].inc()

    def error(self, kind: Kind) -> None:
        """A request, or a text of a list, was answered with an error."""
        self._errors[kind].inc()

    def ready(self, classifier: Classifier, labels: Iterable[str]) -> None:
        """A model answers, with these labels."""
        self._model.clear()
        self._model.labels(classifier.name, classifier.revision, classifier.backend).set(1)
        for label in labels:
            self._texts.labels(label)
        if not self._was_ready:  # a second model was not waited for since the start
            self._start.set(process_age_seconds())
        self._was_ready = True

    def watch(self, waiting: Callable[[], tuple[int, int]]) -> None:
        """Ask ``waiting`` for the requests and tokens that wait, at every scrape."""
        self._requests_waiting.set_function(lambda: waiting()[0])
        self._tokens_waiting.set_function(lambda: waiting()[1])


class HttpMetrics:
    """The HTTP series of prometheus-fastapi-instrumentator, without its middleware.

    That one matches the route a second time and builds a request and a response to look at: more
    than all else that is done around a request. What it counts with is used as it is.

    Args:
        paths: which there are: any other is ``none``, for a caller must not make new series.
    """

    def __init__(self, metrics: Metrics, settings: Settings, paths: Iterable[str]) -> None:
        self._paths = frozenset(paths)
        self._count = instrumentation.default(
            metric_namespace=settings.metrics_namespace,
            metric_subsystem=settings.metrics_subsystem,
            registry=metrics.registry,
        )

    def observe(
        self, method: str, path: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """A request was answered; ``received`` and ``sent`` are the bytes of the bodies."""
        if path == METRICS_PATH or self._count is None:
            return
        info = instrumentation.Info(
            request=_sized(received),
            response=_sized(sent),
            method=method if method in METHODS else "other",
            modified_handler=path if path in self._paths else "none",
            modified_status=f"{status // 100}xx",
            modified_duration=seconds,
        )
        self._count(info)


def _sized(length: int) -> Any:  # noqa: ANN401  (all that is asked of a request or a response)
    return SimpleNamespace(headers={"Content-Length": length})


def expose_metrics(app: FastAPI, metrics: Metrics) -> None:
    """Serve the figures on ``/metrics``."""
    instrumentator = Instrumentator(registry=metrics.registry)
    instrumentator.expose(app, endpoint=METRICS_PATH, include_in_schema=False)
