"""What a request costs the dequeuer, by HTTP client: CPU time of this process, not of the server.

    python -m bench.http_clients

Every client posts the same chunked body with the same headers to a stub that answers at once, over
connections that stay open, and reads the whole answer. CPU time, unlike elapsed time, hardly
depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import socket
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import httpcore
import httpx
import uvloop

from bench.stub import serve

BODY = b'{"input_text": "a movie that is as lovely as the first one"}'
HEADERS = [
    ("User-Agent", "curl/7.88.1"),
    ("Accept", "*/*"),
    ("Content-Type", "application/json"),
    ("X-Forwarded-For", "127.0.0.1"),
    ("X-Forwarded-Proto", "http"),
    ("X-Envoy-Original-Path", "/sentiment"),
    ("X-Request-Id", "6d26eb54-63ad-4998-95db-3d5f73f9dcee"),
    ("X-Cortex-Request-Id", "6d26eb54-63ad-4998-95db-3d5f73f9dcee"),
]
Post = Callable[[], Awaitable[bytes]]


def _serve(listener: socket.socket) -> None:
    uvloop.run(serve(listener))


async def _chunks() -> AsyncIterator[bytes]:
    yield BODY


async def _httpx(url: str, measure: Callable[[Post], Awaitable[float]]) -> float:
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113

        async def post() -> bytes:
            request = httpx.Request("POST", url, headers=HEADERS, content=_chunks())
            return (await client.send(request)).content

        return await measure(post)


async def _httpcore(url: str, measure: Callable[[Post], Awaitable[float]]) -> float:
    headers = [(name.encode(), value.encode()) for name, value in HEADERS]
    headers += [(b"Host", b"127.0.0.1"), (b"Transfer-Encoding", b"chunked")]
    async with httpcore.AsyncConnectionPool(max_connections=64) as pool:

        async def post() -> bytes:
            answer = await pool.request("POST", url, headers=headers, content=_chunks())
            return answer.content

        return await measure(post)


async def _aiohttp(url: str, measure: Callable[[Post], Awaitable[float]]) -> float:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=None),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    ) as session:

        async def post() -> bytes:
            async with session.post(
                url, data=_chunks(), headers=HEADERS, allow_redirects=False
            ) as answer:
                return await answer.read()

        return await measure(post)


CLIENTS = {"httpx": _httpx, "httpcore": _httpcore, "aiohttp": _aiohttp}


async def _measure(post: Post, requests: int, concurrency: int) -> float:
    async def worker(count: int) -> None:
        for _ in range(count):
            await post()

    await worker(50)
    started = time.process_time()
    await asyncio.gather(*(worker(requests // concurrency) for _ in range(concurrency)))
    return (time.process_time() - started) / (requests // concurrency * concurrency) * 1e6


def main() -> None:
    """Print microseconds of CPU time a request, the median of alternating rounds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(listener,))
    server.start()

    async def measure(post: Post) -> float:
        return await _measure(post, options.requests, options.concurrency)

    try:
        costs: dict[str, list[float]] = {name: [] for name in CLIENTS}
        for _ in range(options.rounds):
            for name, client in CLIENTS.items():
                costs[name].append(uvloop.run(client(url, measure)))
    finally:
        server.kill()
    for name, values in costs.items():
        print(f"{name:10} {statistics.median(values):6.0f} us of CPU a request")


if __name__ == "__main__":
    main()
