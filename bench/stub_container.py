"""A container that answers at once, by the length of a text: it shows what the rest can do.

python -m bench.stub_container 8000
"""

from __future__ import annotations

import sys
import zlib

from aiohttp import web


def predict(text: str) -> dict[str, object]:
    """A label and a score that belong to this text and hardly to another."""
    digest = zlib.crc32(text.encode())
    return {"label": "POSITIVE" if digest % 2 else "NEGATIVE", "score": digest / (1 << 32)}


async def _classify(request: web.Request) -> web.Response:
    texts = (await request.json())["input_text"]
    if isinstance(texts, str):
        return web.json_response(predict(texts))
    return web.json_response({"predictions": [predict(text) for text in texts], "model": "stub"})


async def _healthy(request: web.Request) -> web.Response:
    return web.json_response({"status": "ready"})


def main() -> None:
    """Serve until stopped."""
    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/", _classify)
    app.router.add_get("/healthcheck", _healthy)
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)


if __name__ == "__main__":
    main()
