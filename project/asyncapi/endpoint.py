"""The gateway's HTTP: the routes of Cortex's async-gateway behind the API's endpoint."""

from __future__ import annotations

import json
import logging

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from project.asyncapi.service import NotAnObject, Service
from project.asyncapi.storage import StorageError

logger = logging.getLogger(__name__)


def create_gateway(service: Service, endpoint: str) -> Starlette:
    """The ASGI app that answers below ``/<endpoint>``."""
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"]
    app = Starlette(
        routes=[
            Route(f"/{endpoint}", submit, methods=methods),
            Route(f"/{endpoint}/", submit, methods=methods),
            Route(f"/{endpoint}/healthz", healthz, methods=["GET"]),
            Route(f"/{endpoint}/{{id}}", poll, methods=methods),
            Route(f"/{endpoint}/{{id:path}}", no_such_page, methods=methods),
        ],
        exception_handlers={
            ClientDisconnect: _gone,
            HTTPException: _empty,
            NotAnObject: _failed,
            StorageError: _failed,
        },
    )
    app.router.redirect_slashes = False
    app.state.service = service
    return app


async def submit(request: Request) -> Response:
    """Accept a request: 200 with its id once it is stored, whatever it holds."""
    _require("POST", request)
    service: Service = request.app.state.service
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    headers = tuple(
        (name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw
    )
    request_id = await service.create_workload(path, headers, await request.body())
    return _json({"id": request_id})


async def poll(request: Request) -> Response:
    """The status object of a request."""
    _require("GET", request)
    service: Service = request.app.state.service
    request_id = request.path_params["id"]
    answer = await service.get_workload(request_id)
    if answer is None:
        return _plain(f"error: id {request_id} not found", status=404)
    return _json(answer)


async def healthz(request: Request) -> Response:
    """The gateway's own health; it says nothing of the container."""
    return _plain("ok")


async def no_such_page(request: Request) -> Response:
    """What Go's router says of a path with more than one segment."""
    return PlainTextResponse(
        "404 page not found\n", status_code=404, headers={"X-Content-Type-Options": "nosniff"}
    )


def _require(method: str, request: Request) -> None:
    if request.method != method:
        raise HTTPException(405)


def _json(value: dict[str, object]) -> Response:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
    return Response(text, media_type="application/json")


def _plain(text: str, status: int = 200) -> Response:
    # Not PlainTextResponse: Cortex's text/plain has no charset.
    return Response(text, status_code=status, headers={"Content-Type": "text/plain"})


async def _empty(request: Request, error: Exception) -> Response:
    return Response(status_code=error.status_code if isinstance(error, HTTPException) else 500)


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody reads it: the client left before its request ended


async def _failed(request: Request, error: Exception) -> Response:
    logger.error("%s %s: %s", request.method, request.url.path, error)
    return _plain(f"error: {error}", status=500)
