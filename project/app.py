"""The container's application: ``POST /`` classifies, ``GET /healthcheck`` says whether it can.

python -m project --port 8000
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi_offline import FastAPIOffline
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from project.access import EXCHANGE, Access, Exchange
from project.classify import Classify
from project.engine import Die, Engine, Load, State, load_classifier
from project.monitoring import HttpMetrics, Metrics, expose_metrics, process_age_seconds
from project.openapi import DESCRIPTION, HEALTHCHECK, describe
from project.problems import MEDIA_TYPE, Kind, Problem
from project.schemas import Health
from project.sentiment.memory import bound_malloc
from project.settings import Settings

DOCUMENT_PATHS = ("/docs", "/redoc", "/openapi.json")
ROUTES = {404: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED}


def create_app(
    settings: Settings | None = None, load: Load = load_classifier, die: Die = os._exit
) -> ASGIApp:
    """Build the app; the model is loaded when the server starts, not here.

    Args:
        die: ends the process when there can be no model, with an exit code.
    """
    bound_malloc()  # here, before there are threads
    settings = settings or Settings()
    metrics = Metrics(settings.metrics_namespace, settings.metrics_subsystem)

    def end(code: int) -> None:
        access.give_up()
        die(code)

    engine = Engine(settings, load, metrics, end)
    classify = Classify(engine, settings, metrics)
    app = _create_fastapi(engine, classify)
    http_metrics = None
    if settings.enable_metrics:
        expose_metrics(app, metrics)
        http_metrics = HttpMetrics(metrics, settings, ("/", "/healthcheck", *DOCUMENT_PATHS))
    access = Access(Shortcut(app, classify), lambda: engine.model, metrics, http_metrics)
    return access


class Shortcut:
    """``POST /`` goes straight to its application, and not through FastAPI's router.

    FastAPI around it would take as long again as all that is here: ``python -m bench.container``.
    """

    def __init__(self, app: ASGIApp, classify: Classify) -> None:
        self._app = app
        self._classify = classify

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass ``scope`` on."""
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] == "POST":
            await self._classify(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _create_fastapi(engine: Engine, classify: Classify) -> FastAPI:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        running = asyncio.create_task(engine.run())
        yield
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        engine.close()

    async def healthcheck() -> JSONResponse:
        """Whether the model answers: 200, or 503 with the reason."""
        status = engine.status()
        health = Health(
            status=status.state,
            reason=status.reason,
            model=status.model.name if status.model else None,
            revision=status.model.revision if status.model else None,
            backend=status.model.backend if status.model else None,
            uptime_seconds=round(process_age_seconds(), 3),
        )
        code = 200 if status.state is State.READY else 503
        return JSONResponse(health.model_dump(exclude_none=True), status_code=code)

    app = FastAPIOffline(
        title="Sentiment", description=DESCRIPTION, lifespan=lifespan, redirect_slashes=False
    )
    app.router.routes.append(Route("/", classify, methods=["POST"]))
    app.add_api_route("/healthcheck", healthcheck, methods=["GET"], **HEALTHCHECK)
    app.add_exception_handler(HTTPException, _no_route)
    describe(app)
    return app


async def _no_route(request: Request, error: Exception) -> Response:
    """404 and 405 as problems."""
    refused = cast("HTTPException", error)
    exchange: Exchange = request.scope[EXCHANGE]
    exchange.kind = kind = ROUTES.get(refused.status_code, Kind.NOT_FOUND)
    problem = Problem(kind, f"{request.method} {request.url.path} is not served here")
    return Response(
        to_json(problem.members()), kind.status, refused.headers, media_type=MEDIA_TYPE.decode()
    )
