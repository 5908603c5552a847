"""A gateway behind bad luck: a proxy that loses answers, drops connections, and counts."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from tests.helpers import listening

NOT_PASSED_ON = {"host", "content-length", "connection"}


@dataclass(slots=True)
class Nasty:
    """What a proxy does, and has seen.

    Attributes:
        gateway: the URL that it forwards to, without a path.
        lose_every: so many answers, 503 comes instead of one, after the gateway has done its work.
        drop_every: so many connections, one is cut in its first request.
        external: tell the gateway that clients are external: it then replaces their ids.
        bodies: how often the gateway has taken each body.
        ids: by body, the last id that the gateway gave.
        url: where it listens.
    """

    gateway: str
    lose_every: int = 0
    drop_every: int = 0
    external: bool = False
    url: str = ""
    requests: int = 0
    connections: int = 0
    bodies: Counter[bytes] = field(default_factory=Counter)
    ids: dict[bytes, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def nasty(proxy: Nasty) -> AsyncIterator[Nasty]:
    """Run a proxy on a free port; its ``url`` is set."""
    async with httpx.AsyncClient(timeout=30) as upstream:

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            proxy.connections += 1
            number = proxy.connections
            with contextlib.suppress(asyncio.IncompleteReadError, httpx.HTTPError, OSError):
                while True:
                    answer = await _forward(proxy, upstream, await _read(reader))
                    if proxy.drop_every and not number % proxy.drop_every:
                        return
                    writer.write(_encode(proxy, answer))
                    await writer.drain()

        async with listening(talk) as port:
            proxy.url = f"http://127.0.0.1:{port}"
            yield proxy


async def _read(reader: asyncio.StreamReader) -> tuple[str, str, dict[str, str], bytes]:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = head[0].split(" ")
    headers = dict(line.split(": ", 1) for line in head[1:] if line)
    length = {name.lower(): value for name, value in headers.items()}.get("content-length", "0")
    return method, path, headers, await reader.readexactly(int(length))


async def _forward(
    proxy: Nasty, upstream: httpx.AsyncClient, request: tuple[str, str, dict[str, str], bytes]
) -> httpx.Response:
    method, path, headers, body = request
    proxy.requests += 1
    kept = {name: value for name, value in headers.items() if name.lower() not in NOT_PASSED_ON}
    if proxy.external:
        kept["X-Forwarded-For"] = "203.0.113.7"
    answer = await upstream.request(method, proxy.gateway + path, headers=kept, content=body)
    if method == "POST" and answer.status_code == 200:
        proxy.bodies[body] += 1
        proxy.ids[body] = json.loads(answer.content)["id"]
    return answer


def _encode(proxy: Nasty, answer: httpx.Response) -> bytes:
    status, body = answer.status_code, answer.content
    if proxy.lose_every and not proxy.requests % proxy.lose_every:
        status, body = 503, b"upstream connect error"
    kind = answer.headers.get("content-type", "text/plain")
    head = (
        f"HTTP/1.1 {status} Status\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
