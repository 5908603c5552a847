"""``python -m project.asyncapi``: runs the AsyncAPIs of ``cortex.yaml`` on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import logging
import resource
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from project.asyncapi import logs
from project.asyncapi.api import Limits
from project.asyncapi.config import ConfigError, read_config
from project.asyncapi.process import PortInUse, leave_the_cores
from project.asyncapi.runtime import Options, Runtime
from project.asyncapi.spec import AsyncAPI
from project.asyncapi.storage import StorageError

COMMAND = f"{shlex.quote(sys.executable)} -m project --host 127.0.0.1 --port $(CORTEX_PORT)"

READY = """\
ready: {name} answers on {url}, its container on {container}

  curl -X POST '{url}' -H 'content-type: application/json' -d '{{"input_text": "i like you"}}'
  curl '{url}/<id>'
  python async_requests.py --endpoint '{url}' "i like you" "i hate you"
"""

DESCRIPTORS = 1 << 16
GARBAGE_THRESHOLD = 50_000  # objects; Python 3.11's own: 700
SECONDS_PER_DAY = 24 * 3600
MAX_DAYS = 36500
MAX_BYTES = 512 << 20
"""Of a body or a result: SQLite's rows have less than 10^9."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["validate"]:
        from project.asyncapi import validate  # of which running APIs need nothing

        return validate.main(words[1:])
    arguments = _parse(words)
    logs.configure(arguments.log_level, arguments.log_format)
    logging.getLogger("aiohttp").setLevel(logging.WARNING)
    try:
        apis = read_config(arguments.config)
        _allow_descriptors()
        uvloop.run(_serve(apis, _options(apis, arguments)))
    except (ConfigError, PortInUse, StorageError, OSError) as error:
        print(f"asyncapi: {error}", file=sys.stderr)
        return 1
    return 0


async def _serve(apis: Sequence[AsyncAPI], options: Options) -> None:
    runtime = Runtime(apis, options)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, runtime.stop)

    def announce() -> None:
        for api in apis:
            placed = runtime.placements[api.name]
            url = f"http://localhost:{runtime.port}/{api.endpoint}"
            container = f"http://{placed.host}:{placed.port}"
            print(READY.format(name=api.name, url=url, container=container))
        print(f"Metrics: http://localhost:{runtime.metrics_port}/metrics")
        print("\nCtrl-C stops it.", flush=True)

    await runtime.run(announce)


def _allow_descriptors() -> None:
    """A client costs one, and shells begin with 1024; not all, for some programs close them all."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _options(apis: Sequence[AsyncAPI], arguments: argparse.Namespace) -> Options:
    names = {api.name for api in apis}
    commands = _by_name("--command", arguments.command, names)
    return Options(
        host=arguments.host,
        port=arguments.port,
        metrics_port=arguments.metrics_port,
        storage=arguments.storage,
        commands={"": shlex.split(COMMAND)}
        | {name: shlex.split(command) for name, command in commands.items()},
        container_urls=_by_name("--container-url", arguments.container_url, names),
        limits=Limits(
            max_payload_bytes=arguments.max_payload_bytes,
            max_result_bytes=arguments.max_result_bytes,
            max_queue_length=arguments.max_queue_length,
            min_free_bytes=arguments.min_free_bytes,
            retention_seconds=arguments.retention_days * SECONDS_PER_DAY,
        ),
        max_receives=arguments.max_receives,
        faithful=arguments.faithful,
    )


def _by_name(option: str, values: Sequence[str], names: set[str]) -> dict[str, str]:
    """``name=value`` by API name; a value without a name of an API is for all, under ""."""
    found: dict[str, str] = {}
    for value in values:
        name, separator, rest = value.partition("=")
        key, text = (name, rest) if separator and name in names else ("", value)
        if key in found:
            raise ConfigError(f"{option} is given twice for {key or 'every API'}")
        found[key] = text
    return found


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m project.asyncapi",
        description=__doc__,
        epilog="python -m project.asyncapi validate [FILE ...] checks cortex.yaml and cluster.yaml",
    )
    add = parser.add_argument
    add("--config", type=Path, default=Path("cortex.yaml"), help="%(default)s")
    add("--host", default="127.0.0.1", help="to listen on (%(default)s)")
    add("--port", type=_port, default=8888, help="0: a free one (%(default)s)")
    add("--metrics-port", type=_port, default=15000, help="0: a free one (%(default)s)")
    add(
        "--storage",
        type=Path,
        default=Path(".asyncapi"),
        help="folder of SQLite files (%(default)s)",
    )
    add("--container-url", action="append", default=[], metavar="[API=]URL",
        help="of a container that runs; none is started then")  # fmt: skip
    add("--command", action="append", default=[], metavar="[API=]COMMAND",
        help=f"starts the container on $(CORTEX_PORT) ({COMMAND})")  # fmt: skip
    limits = Limits()
    add("--max-payload-bytes", type=_bytes, default=limits.max_payload_bytes,
        help="of a request's body (%(default)s)")  # fmt: skip
    add("--max-result-bytes", type=_bytes, default=limits.max_result_bytes,
        help="of a container's answer (%(default)s)")  # fmt: skip
    add("--max-queue-length", type=_positive, default=limits.max_queue_length,
        help="requests that wait or are in progress (%(default)s)")  # fmt: skip
    add("--min-free-bytes", type=_not_negative, default=limits.min_free_bytes,
        help="of the disk, below which no request is taken (%(default)s)")  # fmt: skip
    add("--retention-days", type=_days, default=limits.retention_seconds / SECONDS_PER_DAY,
        help="for which results are kept (%(default)s)")  # fmt: skip
    add("--max-receives", type=_positive, default=3,
        help="deliveries of a request that breaks its connection (%(default)s)")  # fmt: skip
    add("--faithful", action="store_true",
        help="lose what Cortex loses: a broken connection fails its request, and an idle queue "
        "is looked at every 10 s")  # fmt: skip
    add("--log-level", default="info", choices=("debug", "info", "warning", "error"),
        help="(%(default)s)")  # fmt: skip
    add("--log-format", default="auto", choices=logs.FORMATS,
        help="auto: text on a terminal, else JSON (%(default)s)")  # fmt: skip
    return parser.parse_args(argv)


def _port(text: str) -> int:
    return int(_within(text, int, 0, 65535))


def _bytes(text: str) -> int:
    return int(_within(text, int, 1, MAX_BYTES))


def _days(text: str) -> float:
    return _within(text, float, 0.001, MAX_DAYS)


def _positive(text: str) -> int:
    return int(_within(text, int, 1, None))


def _not_negative(text: str) -> int:
    return int(_within(text, int, 0, None))


def _within(text: str, kind: Callable[[str], float], least: float, most: float | None) -> float:
    with contextlib.suppress(ValueError):
        value = kind(text)
        if least <= value and (most is None or value <= most):  # not so for a NaN
            return value
    bounds = f"at least {least}" if most is None else f"{least} to {most}"
    whole = "a whole number" if isinstance(least, int) else "a number"
    raise argparse.ArgumentTypeError(f"{text!r}: must be {whole}, {bounds}")


def collect_rarely() -> None:
    """Look for garbage rarely, and never in what was imported: a tenth of the time went there.

    What is in cycles is little: a request that breaks leaves a hundred small objects, and never its
    body. Source: https://docs.python.org/3/library/gc.html#gc.freeze
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_THRESHOLD)


if __name__ == "__main__":
    collect_rarely()
    leave_the_cores()
    sys.exit(main())
