"""Prometheus metrics with Cortex's names and labels, on a port of their own.

Source: cortexlabs/cortex, pkg/dequeuer/async_stats.go and
pkg/operator/resources/asyncapi/queue_metrics.go.
"""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from project.asyncapi.queue import RequestQueue

GO_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LABELS = ("api_name", "api_kind")


class Metrics:
    """The metrics of all APIs, and the ASGI app that answers ``GET /metrics``."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._queues: dict[str, RequestQueue] = {}
        answer_labels = (*LABELS, "status_code")
        self._requests = Counter(
            "cortex_async_request_count",
            "Request count for an AsyncAPI",
            answer_labels,
            registry=self._registry,
        )
        self._latency = Histogram(
            "cortex_async_latency",
            "Histogram of the latencies for an AsyncAPI kind in seconds",
            answer_labels,
            buckets=GO_BUCKETS,
            registry=self._registry,
        )
        self._queued = self._gauge("queued", "Number of messages in the queue")
        self._in_flight = self._gauge("in_flight", "Number of messages being processed")
        self._active = self._gauge("active", "Number of messages in the queue or being processed")
        # Not Cortex's: SQS has it, as ApproximateAgeOfOldestMessage.
        self._oldest = self._gauge(
            "oldest_message_age_seconds", "Age of the oldest message in the queue"
        )

    def add(self, api_name: str, queue: RequestQueue) -> None:
        """Report the depth of an API's queue with every scrape."""
        self._queues[api_name] = queue

    def observe(self, api_name: str, status_code: int, seconds: float) -> None:
        """The container of ``api_name`` has answered."""
        labels = (api_name, "AsyncAPI", str(status_code))
        self._requests.labels(*labels).inc()
        self._latency.labels(*labels).observe(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one scrape."""
        if scope["path"] != "/metrics":
            answer = Response("404 page not found\n", status_code=404, media_type="text/plain")
        else:
            await self._measure(self._queues)
            answer = Response(self._text(), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})
        await answer(scope, receive, send)

    async def _measure(self, queues: Mapping[str, RequestQueue]) -> None:
        for api_name, queue in queues.items():
            depth = await queue.depth()
            self._queued.labels(api_name, "AsyncAPI").set(depth.queued)
            self._in_flight.labels(api_name, "AsyncAPI").set(depth.in_flight)
            self._active.labels(api_name, "AsyncAPI").set(depth.queued + depth.in_flight)
            self._oldest.labels(api_name, "AsyncAPI").set(depth.oldest_age_seconds)

    def _text(self) -> bytes:
        # Go's client library neither appends _total to a counter's name, as this one does, nor
        # writes when a series began; Cortex's dashboards ask for Go's names.
        names = {sample.name for metric in self._registry.collect() for sample in metric.samples}
        began = {name for name in names if name.endswith("_created")}
        text = generate_latest(self._registry.restricted_registry(names - began))
        return text.replace(b"cortex_async_request_count_total", b"cortex_async_request_count")

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"cortex_async_{name}", text, LABELS, registry=self._registry)
