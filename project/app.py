"""The container: ``POST /`` classifies, ``GET /healthcheck`` says whether it can.

uvicorn --factory project.app:create_app --port 8000
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar, cast

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from project.batching import Batcher, BatchLimits, DeadlineExceeded, Overloaded
from project.monitoring import Metrics, expose_metrics
from project.schemas import (
    Classification,
    Classifications,
    ClassifyRequest,
    ErrorAnswer,
    Health,
    Limits,
    RequestError,
    Scored,
    Texts,
    read_texts,
)
from project.sentiment.options import LongTextPolicy
from project.sentiment.prediction import Classifier, Prediction, TextTooLong
from project.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP_TEXT = "i like you"
LARGE_BODY_BYTES = 100_000  # takes about a millisecond to parse: more is done off the event loop
CORTEX_REQUEST_ID = "X-Cortex-Request-ID"
ORIGINAL_PATH = "X-Envoy-Original-Path"

T = TypeVar("T")
Load = Callable[[Settings], Classifier]


class NotReady(RuntimeError):
    """The model is not loaded yet, or could not be."""


def load_classifier(settings: Settings) -> Classifier:
    """Load the model that the settings name."""
    # Here, not above: importing the app must stay cheap, and the server must be able to answer
    # 503 while the frameworks below are imported.
    from project.sentiment.files import WEIGHTS
    from project.sentiment.golden import check_golden, read_golden
    from project.sentiment.model import SentimentClassifier

    classifier = SentimentClassifier(
        settings.model or WEIGHTS,
        settings.model_revision,
        backend=settings.backend,
        threads=settings.threads,
        long_texts=LongTextPolicy(settings.on_long_text, max_windows=settings.max_windows),
    )
    check_golden(classifier, read_golden(classifier.folder), settings.parity_tolerance)
    return classifier


class Engine:
    """The model's life: loading, ready, or failed with a reason.

    Args:
        load: called once, on a thread.
    """

    def __init__(self, settings: Settings, load: Load, metrics: Metrics) -> None:
        self._settings = settings
        self._load = load
        self._metrics = metrics
        self._loaded: tuple[Batcher, str] | None = None
        self._reason = "the model is being loaded"

    async def start(self) -> None:
        """Load the model and let it answer a first text; a failure becomes the reason."""
        try:
            classifier = await asyncio.to_thread(self._load, self._settings)
            batcher = Batcher(classifier, _batch_limits(self._settings), self._metrics)
        except Exception as error:
            self._failed(error)
            return
        try:
            (first,) = await batcher.predict([WARM_UP_TEXT])
        except Exception as error:
            batcher.close()
            self._failed(error)
            return
        self._loaded = batcher, classifier.name
        self._metrics.watch(lambda: batcher.waiting)
        self._metrics.ready(classifier, first.scores)

    def _failed(self, error: Exception) -> None:
        logger.error("the model could not be started", exc_info=error)
        self._reason = f"the model could not be started: {error}"

    def health(self) -> Health:
        """Whether requests can be answered, and if not, why."""
        if self._loaded is None:
            return Health(status="unavailable", reason=self._reason)
        return Health(status="ready", model=self._loaded[1])

    async def classify(self, texts: Texts) -> Classification | Classifications:
        """Classify what a request asked for.

        Raises:
            NotReady: the model is not loaded.
            Overloaded: too much waits.
            DeadlineExceeded: the model did not come to it in time.
            RequestError: a text is too long for the model.
        """
        if self._loaded is None:
            raise NotReady(self._reason)
        batcher, name = self._loaded
        try:
            predictions = await batcher.predict(texts.values)
        except TextTooLong as error:
            self._metrics.too_long()
            raise RequestError(f"input_text[{error.index}]", str(error)) from error
        self._metrics.classified(predictions)
        if texts.single:
            return Classification(model=name, **_fields(predictions[0]))
        return Classifications(
            model=name, predictions=[Scored(**_fields(each)) for each in predictions]
        )

    def close(self) -> None:
        """End the inference thread."""
        if self._loaded is not None:
            self._loaded[0].close()


def _fields(prediction: Prediction) -> dict[str, Any]:
    return {name: getattr(prediction, name) for name in Scored.model_fields}


def _batch_limits(settings: Settings) -> BatchLimits:
    return BatchLimits(
        tokens=settings.batch_tokens,
        waiting_requests=settings.max_waiting_requests,
        waiting_tokens=settings.max_waiting_tokens,
        seconds=settings.request_timeout_seconds,
    )


@dataclass(frozen=True, slots=True)
class Container:
    """What the routes share, kept on ``app.state.container``."""

    engine: Engine
    limits: Limits


def create_app(settings: Settings | None = None, load: Load = load_classifier) -> FastAPI:
    """Build the app; the model is loaded when the server starts, not here."""
    settings = settings or Settings()
    metrics = Metrics(settings.metrics_namespace, settings.metrics_subsystem)
    engine = Engine(settings, load, metrics)
    app = FastAPI(title="Sentiment", lifespan=_lifespan, redirect_slashes=False)
    app.state.container = Container(
        engine=engine,
        limits=Limits(
            body_bytes=settings.max_body_bytes,
            texts=settings.max_texts,
            text_chars=settings.max_text_chars,
        ),
    )
    app.add_api_route("/", classify, methods=["POST"], **CLASSIFY_ROUTE)
    app.add_api_route("/healthcheck", healthcheck, methods=["GET"], **HEALTHCHECK_ROUTE)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(DeadlineExceeded, _late)
    app.add_exception_handler(NotReady, _unavailable)
    app.add_exception_handler(Overloaded, _unavailable)
    if settings.enable_metrics:
        expose_metrics(app, settings, metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    engine: Engine = app.state.container.engine
    loading = asyncio.create_task(engine.start())
    yield
    await loading
    engine.close()


async def _container(request: Request) -> Container:  # a plain function would cost a thread
    container: Container = request.app.state.container
    return container


async def classify(
    request: Request,
    container: Annotated[Container, Depends(_container)],
    input_text: Annotated[list[str] | None, Query(description="text to classify")] = None,
) -> Classification | Classifications:
    """Classify one text or a list of texts."""
    body = await _read_body(request, container.limits.body_bytes)
    query, path = request.url.query, request.headers.get(ORIGINAL_PATH, "")
    if len(body) > LARGE_BODY_BYTES:
        texts = await asyncio.to_thread(read_texts, body, query, path, container.limits)
    else:
        texts = read_texts(body, query, path, container.limits)
    return await _unless_gone(request, container.engine.classify(texts))


async def _unless_gone(request: Request, answer: Coroutine[Any, Any, T]) -> T:
    """Await ``answer``, or cancel it when the client leaves: nobody would read it.

    Raises:
        ClientDisconnect: the client has left.
    """
    answering = asyncio.ensure_future(answer)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise ClientDisconnect
        return answering.result()
    finally:
        answering.cancel()
        leaving.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def healthcheck(container: Annotated[Container, Depends(_container)]) -> JSONResponse:
    """Whether the model answers: 200, or 503 with the reason."""
    health = container.engine.health()
    status = 200 if health.status == "ready" else 503
    return JSONResponse(health.model_dump(exclude_none=True), status_code=status)


async def _read_body(request: Request, limit: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise RequestError("body", f"is longer than {limit} bytes", status=413)
    return bytes(body)


async def _refused(request: Request, error: Exception) -> JSONResponse:
    refused = cast("RequestError", error)
    # Behind Cortex every status but 200 is an unexplained "failed": there, the error is a result.
    status = 200 if CORTEX_REQUEST_ID in request.headers else refused.status
    return JSONResponse(refused.answer().model_dump(), status_code=status)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it: the client left before its request ended


async def _late(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=504)


async def _unavailable(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, status_code=503, headers={"Retry-After": "1"})


CLASSIFY_ROUTE: dict[str, Any] = {
    "response_model": Classification | Classifications,
    "responses": {413: {"model": ErrorAnswer}, 422: {"model": ErrorAnswer}, 503: {}, 504: {}},
    "openapi_extra": {
        "requestBody": {
            "content": {"application/json": {"schema": ClassifyRequest.model_json_schema()}}
        }
    },
}
HEALTHCHECK_ROUTE: dict[str, Any] = {
    "response_model": Health,
    "responses": {503: {"model": Health}},
}
