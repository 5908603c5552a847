"""What is done around every request: time it, count it, log it, say which model answered.

Plain ASGI, for every request pays for it: ``python -m bench.container``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from project.batching import Timings
from project.engine import ModelInfo
from project.monitoring import HttpMetrics, Metrics
from project.problems import Kind

logger = logging.getLogger(__name__)

EXCHANGE = "sentiment.exchange"
"""Where in the ASGI scope the exchange is."""

QUIET_PATHS = frozenset({"/healthcheck", "/metrics"})
"""Probes and scrapes come every second: what goes well is logged for debugging only."""

CORTEX_REQUEST_ID = b"x-cortex-request-id"
REQUEST_ID = b"x-request-id"
ID_CHARS = 200  # of a request's id in the log: it is the caller's

RawHeaders = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Exchange:
    """A request and its answer, as far as they have come.

    Attributes:
        received, sent: bytes of their bodies.
        tokens: of the texts that were classified.
        kind: of the problem, if there is one.
    """

    headers: dict[bytes, bytes]
    started: float = field(default_factory=perf_counter)
    status: int = 500
    received: int = 0
    sent: int = 0
    texts: int = 0
    tokens: int = 0
    kind: Kind | None = None
    timings: Timings | None = None

    @property
    def request_id(self) -> str | None:
        """Cortex's, or the caller's own."""
        value = self.headers.get(CORTEX_REQUEST_ID) or self.headers.get(REQUEST_ID)
        return value.decode("latin-1")[:ID_CHARS] if value else None


class Access:
    """ASGI middleware.

    Args:
        model: the model that answers, if any.
    """

    def __init__(
        self,
        app: ASGIApp,
        model: Callable[[], ModelInfo | None],
        metrics: Metrics,
        http_metrics: HttpMetrics | None = None,
    ) -> None:
        self._app = app
        self._model = model
        self._metrics = metrics
        self._http_metrics = http_metrics
        self._known: tuple[ModelInfo | None, RawHeaders] = (None, [])
        self._open: dict[int, tuple[Scope, Exchange]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass ``scope`` on, and note what comes back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = scope[EXCHANGE] = Exchange(dict(scope["headers"]))
        self._open[id(exchange)] = scope, exchange

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                message["headers"] = [
                    *message["headers"],
                    *self._provenance(),
                    (b"server-timing", _server_timing(exchange)),
                ]
            else:
                exchange.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            del self._open[id(exchange)]
            self._note(scope, exchange)

    def give_up(self) -> None:
        """The process ends at once: log which requests get no answer."""
        for scope, exchange in self._open.values():
            fields = _fields(scope, exchange, perf_counter() - exchange.started)
            logger.error("request without an answer", extra={"fields": fields})

    def _provenance(self) -> RawHeaders:
        model = self._model()
        if model is None:
            return []
        known, headers = self._known
        if known is not model:
            headers = [
                (b"x-model", model.name.encode("ascii", "replace")),
                (b"x-model-revision", model.revision.encode("ascii", "replace")),
                (b"x-model-backend", model.backend.encode("ascii", "replace")),
            ]
            self._known = model, headers
        return headers

    def _note(self, scope: Scope, exchange: Exchange) -> None:
        seconds = perf_counter() - exchange.started
        if exchange.kind is not None:
            self._metrics.error(exchange.kind)
        if self._http_metrics is not None:
            self._http_metrics.observe(
                scope["method"], scope["path"], exchange.status, seconds,
                exchange.received, exchange.sent,
            )  # fmt: skip
        level = logging.ERROR if exchange.status >= 500 else logging.INFO
        if scope["path"] in QUIET_PATHS:
            level = logging.DEBUG
        if logger.isEnabledFor(level):
            logger.log(level, "request", extra={"fields": _fields(scope, exchange, seconds)})


def _server_timing(exchange: Exchange) -> bytes:
    """Milliseconds, as in https://www.w3.org/TR/server-timing/."""
    total = f"total;dur={(perf_counter() - exchange.started) * 1e3:.2f}"
    spent = exchange.timings
    if spent is None:
        return total.encode()
    return (
        f"tokenize;dur={spent.tokenize * 1e3:.2f}, queue;dur={spent.queue * 1e3:.2f},"
        f" inference;dur={spent.inference * 1e3:.2f}, {total}"
    ).encode()


def _fields(scope: Scope, exchange: Exchange, seconds: float) -> dict[str, object]:
    """What the log says of a request: never its texts."""
    fields: dict[str, object] = {
        "id": exchange.request_id,
        "method": scope["method"],
        "path": scope["path"],
        "status": exchange.status,
        "milliseconds": round(seconds * 1e3, 2),
    }
    if exchange.texts:
        fields |= {"texts": exchange.texts, "tokens": exchange.tokens}
    if exchange.kind is not None:
        fields["error"] = exchange.kind.slug
    return fields
