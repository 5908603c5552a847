"""``python -m project``: serves the container's API, with the settings of the environment."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import threading
from collections.abc import Sequence

import uvicorn
from pydantic import ValidationError

from project import logs
from project.app import create_app
from project.engine import Load, load_classifier
from project.server import GRACE_SECONDS, KEEP_ALIVE_SECONDS, Server, let_inference_run
from project.settings import Settings

STARTUP_FAILURE = 1


def main(argv: Sequence[str] | None = None, load: Load = load_classifier) -> int:
    """Run the command line; returns the exit code."""
    arguments = _parse(argv)
    try:
        settings = Settings()
    except ValidationError as error:
        for each in error.errors():
            name = "_".join(map(str, each["loc"])).upper()
            print(f"{name}: {each['msg']}, not {each['input']!r}", file=sys.stderr)
        return STARTUP_FAILURE
    logs.configure(settings.log_level, settings.log_format)
    config = uvicorn.Config(
        create_app(settings, load),
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return _run(Server(config, settings.drain_seconds))


def _run(server: Server) -> int:
    """Until it has ended; returns the exit code, unless a thread still loads or computes.

    Then the process ends here and now: at the interpreter's own end, a thread that comes back from
    a library in C++ would abort it.
    """
    code = 0
    try:
        server.run()
    except KeyboardInterrupt:
        pass
    except SystemExit:  # uvicorn's, which has logged why: a port that is taken
        code = STARTUP_FAILURE
    if any(thread.daemon for thread in threading.enumerate()):
        logging.shutdown()
        os._exit(code)
    return code


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m project", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="to listen on (%(default)s)")  # noqa: S104
    parser.add_argument(
        "--port",
        type=int,
        default=os.environ.get("CORTEX_PORT", "8000"),
        help="to listen on; $CORTEX_PORT, if it is set (%(default)s)",
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    let_inference_run()
    sys.exit(main())
