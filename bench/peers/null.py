"""Answers at once: what the load generator and uvicorn can do without a model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"2")]


async def app(scope: dict[str, Any], receive: Any, send: Callable[..., Awaitable[None]]) -> None:  # noqa: ANN401
    """An ASGI app that says {} to everything."""
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        await send({"type": "http.response.body", "body": b"{}"})
