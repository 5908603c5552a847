"""Sends one request to the container, as Cortex's dequeuer does, and reads its answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import NoReturn

import httpx

from project.asyncapi.types import Request

REQUEST_ID_HEADER = "X-Cortex-Request-ID"


class Unreachable(RuntimeError):
    """The container could not be reached, or the connection broke before its answer ended."""


class NotSuccessful(RuntimeError):
    """The container answered, but not 200 with JSON: sending it again would not help."""


class RequestHandler:
    """Sends requests to the container at ``url``, over connections that stay open."""

    def __init__(self, url: str, max_concurrency: int) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=max_concurrency)
        # No timeout: a container may take as long as it needs, as on a cluster. The machine's
        # proxy settings are not for a container next door.
        self._client = httpx.AsyncClient(timeout=None, limits=limits, trust_env=False)  # noqa: S113
        self._url = url

    async def submit(self, request: Request) -> bytes:
        """Send ``request`` and return the JSON value that the container answered, encoded.

        Raises:
            Unreachable: nothing is known of the request's fate; it may be sent again.
            NotSuccessful: the answer is final, and no success.
        """
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in request.headers
        ]
        headers.append((REQUEST_ID_HEADER.encode(), request.id.encode()))
        # A Request of its own, not client.post: that would add the client's default headers.
        outgoing = httpx.Request("POST", self._url, headers=headers, content=_body(request.body))
        try:
            response = await self._client.send(outgoing)
        except httpx.TransportError as error:
            raise Unreachable(f"{type(error).__name__}: {error}") from error
        except (httpx.DecodingError, httpx.InvalidURL) as error:
            raise NotSuccessful(f"the answer's headers are wrong: {error}") from error
        return _result(response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _body(body: bytes) -> AsyncIterator[bytes] | bytes:
    """Cortex streams: a body arrives chunked, and only an empty one has a Content-Length."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    return chunks() if body else b""


def _result(response: httpx.Response) -> bytes:
    if response.status_code != 200:
        raise NotSuccessful(f"got status code {response.status_code}, expected status code 200")
    content_type = response.headers.get("Content-Type", "")
    if not content_type.startswith("application/json"):
        raise NotSuccessful(f"got content type {content_type!r}, expected application/json")
    try:
        value = json.loads(response.content, parse_constant=_not_json)
        return json.dumps(
            value, allow_nan=False, ensure_ascii=False, separators=(",", ":"), sort_keys=True
        ).encode()
    except (ValueError, RecursionError) as error:
        raise NotSuccessful(f"the answer is not JSON: {error}") from error


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")
