"""The ingress in front of the gateways: what Istio's Envoy does for a Cortex cluster.

It routes by endpoint, bounds the header, gives every request its id and tells the gateway, and so
the container, where the request came from. Source: Cortex's virtual service (exact ``/<endpoint>``
and prefix ``/<endpoint>/``, rewritten to ``/``) and Envoy's HTTP connection manager:
https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/headers
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import random
import secrets
import time
import uuid
from collections.abc import Mapping

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_HEADER_BYTES = 60 * 1024
"""Envoy's default limit for the header, request line included."""

SERVER = "istio-envoy"

PEER_METADATA = base64.b64encode(b'{"NAME":"local"}')
"""Istio's names the gateway's pod, in protobuf; there is none here."""

_OWN = frozenset(
    {
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-connection",
        b"transfer-encoding",
        b"upgrade",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-spanid",
        b"x-b3-traceid",
        b"x-envoy-attempt-count",
        b"x-envoy-decorator-operation",
        b"x-envoy-external-address",
        b"x-envoy-internal",
        b"x-envoy-original-path",
        b"x-envoy-peer-metadata",
        b"x-envoy-peer-metadata-id",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
"""What belongs to the client's connection, or is set here."""


class Ingress:
    """An ASGI app that hands requests below an endpoint to the endpoint's gateway.

    Args:
        gateways: by endpoint, a path without slashes at its ends.
    """

    def __init__(self, gateways: Mapping[str, ASGIApp]) -> None:
        self._gateways = {f"/{endpoint}": gateway for endpoint, gateway in gateways.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"{scope['type']} is not served")
        original = scope["raw_path"] + (
            b"?" + scope["query_string"] if scope["query_string"] else b""
        )
        if _header_bytes(scope, original) > MAX_HEADER_BYTES:
            await _too_large(scope, receive, send)
            return
        endpoint = self._route(scope["raw_path"].decode("latin-1"))
        if endpoint is None:
            await Response(status_code=404)(scope, receive, send)
            return
        inner = dict(scope)
        inner["path"] = scope["path"][len(endpoint) :] or "/"
        inner["headers"] = _forwarded(scope, endpoint, original)
        await self._gateways[endpoint](inner, receive, _timed(send))

    def _route(self, path: str) -> str | None:
        """By the path as it came: Envoy does not take ``%2F`` for a slash."""
        for endpoint in self._gateways:
            if path == endpoint or path.startswith(f"{endpoint}/"):
                return endpoint
        return None


def _header_bytes(scope: Scope, path: bytes) -> int:
    return len(path) + sum(len(name) + len(value) for name, value in scope["headers"])


async def _too_large(scope: Scope, receive: Receive, send: Send) -> None:
    answer = Response(
        "Request Header Fields Too Large",
        status_code=431,
        headers={"Content-Type": "text/plain", "Connection": "close"},
    )
    await answer(scope, receive, send)


def _forwarded(scope: Scope, endpoint: str, original_path: bytes) -> list[tuple[bytes, bytes]]:
    """The header that the gateway sees."""
    client: dict[bytes, bytes] = dict(scope["headers"])
    kept = [(name, value) for name, value in scope["headers"] if name not in _OWN]
    peer = scope["client"][0] if scope["client"] else "127.0.0.1"
    forwarded_for = client.get(b"x-forwarded-for")
    internal = forwarded_for is None and _is_private(peer)
    chain = peer.encode() if forwarded_for is None else forwarded_for + b"," + peer.encode()
    added = [
        (b"x-envoy-attempt-count", b"1"),
        (b"x-envoy-decorator-operation", _operation(scope["path"], endpoint)),
        (b"x-envoy-original-path", original_path),
        (b"x-envoy-peer-metadata", PEER_METADATA),
        (b"x-envoy-peer-metadata-id", b"router~127.0.0.1~local~local"),
        (b"x-forwarded-for", chain),
        (b"x-forwarded-proto", b"http"),
        (b"x-request-id", _request_id(client.get(b"x-request-id") if internal else None)),
        *_trace(client.get(b"x-b3-traceid")),
    ]
    if internal:
        added.append((b"x-envoy-internal", b"true"))
    else:
        external = peer.encode() if forwarded_for is None else forwarded_for.split(b",")[-1].strip()
        added.append((b"x-envoy-external-address", external))
    return kept + added


def _operation(path: str, endpoint: str) -> bytes:
    """Istio's name of the route: exact, or below the endpoint."""
    below = "" if path == endpoint else "/*"
    return f"async-gateway.default.svc.cluster.local:8888{endpoint}{below}".encode()


def _request_id(own: bytes | None) -> bytes:
    """Envoy keeps the id that an internal client brings, and gives all others a new one."""
    return own or _new_id().encode()


def _new_id() -> str:
    """A UUID of Envoy's version, 4, that begins with the time, in milliseconds since 1970.

    The order is that of RFC 9562's version 7: in the storage's index of ids, requests that are
    stored together are neighbours then, and share its pages. 74 bits are random.
    """
    milliseconds = time.time_ns() // 1_000_000
    return str(uuid.UUID(int=milliseconds << 80 | secrets.randbits(80), version=4))


def _trace(client_trace: bytes | None) -> list[tuple[bytes, bytes]]:
    """A span of the client's trace or of a new one, not sampled."""
    # No secrets, unlike request ids: no call of the system, which other threads would overtake.
    trace = client_trace or b"%032x" % random.getrandbits(128)
    span = trace[-16:] if client_trace is None else b"%016x" % random.getrandbits(64)
    return [(b"x-b3-sampled", b"0"), (b"x-b3-spanid", span), (b"x-b3-traceid", trace)]


@functools.lru_cache(maxsize=1024)
def _is_private(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_private
    except ValueError:  # a Unix socket has none
        return True


def _timed(send: Send) -> Send:
    """Adds Envoy's ``x-envoy-upstream-service-time``, in milliseconds."""
    started = time.monotonic()

    async def timed(message: Message) -> None:
        if message["type"] == "http.response.start":
            elapsed = str(int((time.monotonic() - started) * 1000)).encode()
            headers = [*message["headers"], (b"x-envoy-upstream-service-time", elapsed)]
            message = {**message, "headers": headers}
        await send(message)

    return timed
