"""``python -m project.asyncapi``: runs the AsyncAPI of ``cortex.yaml`` on this machine."""

from __future__ import annotations

import argparse
import asyncio
import logging
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from project.asyncapi.config import AsyncAPI, ConfigError, read_config
from project.asyncapi.replica import PortInUse
from project.asyncapi.runtime import Options, Runtime
from project.asyncapi.storage import StorageError

COMMAND = (
    f"{shlex.quote(sys.executable)} -m uvicorn --factory project.app:create_app"
    " --host 127.0.0.1 --port $(CORTEX_PORT) --no-access-log"
)

READY = """\
ready: {name} answers on {url}, its container on {container}

  curl -X POST '{url}' -H 'content-type: application/json' -d '{{"input_text": "i like you"}}'
  curl '{url}/<id>'
  python async_requests.py --endpoint '{url}' "i like you" "i hate you"

Ctrl-C stops it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parse(argv)
    logging.basicConfig(
        level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every probe
    try:
        api = read_config(options.config)
        asyncio.run(_serve(api, options))
    except (ConfigError, PortInUse, StorageError, OSError) as error:
        print(f"asyncapi: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(api: AsyncAPI, options: argparse.Namespace) -> None:
    runtime = Runtime(
        api,
        Options(
            host=options.host,
            port=options.port,
            storage=options.storage or Path(".asyncapi") / f"{api.name}.sqlite3",
            command=shlex.split(options.command),
            container_url=options.container_url,
        ),
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, runtime.stop)

    def announce() -> None:
        url = f"http://localhost:{runtime.port}/{api.endpoint}"
        container = options.container_url or f"http://localhost:{api.pod.port}"
        print(READY.format(name=api.name, url=url, container=container), flush=True)

    await runtime.run(announce)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m project.asyncapi", description=__doc__)
    parser.add_argument("--config", type=Path, default=Path("cortex.yaml"), help="%(default)s")
    parser.add_argument("--host", default="127.0.0.1", help="to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8888, help="0: a free one (%(default)s)")
    parser.add_argument("--storage", type=Path, help="SQLite file (.asyncapi/<name>.sqlite3)")
    parser.add_argument("--container-url", help="of a container that runs; none is started then")
    parser.add_argument(
        "--command", default=COMMAND, help="starts the container on $(CORTEX_PORT) (%(default)s)"
    )
    levels = ("debug", "info", "warning", "error")
    parser.add_argument("--log-level", default="info", choices=levels, help="(%(default)s)")
    options = parser.parse_args(argv)
    if not 0 <= options.port <= 65535:
        parser.error(f"--port {options.port}: must be 0 to 65535")
    return options


if __name__ == "__main__":
    sys.exit(main())
