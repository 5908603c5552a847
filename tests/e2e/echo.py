"""A container that notes what it gets, and answers with it once there is no file ``hold``.

A result that belongs to another request shows. Run as ``python -m tests.e2e.echo PORT``.
"""

from __future__ import annotations

import http.server
import os
import sys
import time
from pathlib import Path


class Handler(http.server.BaseHTTPRequestHandler):
    """Reads chunked bodies, which is what a dequeuer sends."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """A probe."""
        self._answer(b"{}")

    def do_POST(self) -> None:
        """A request."""
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        with Path("seen").open("ab") as seen:
            seen.write(body + b"\n")
        time.sleep(0.005)
        while Path("hold").exists():
            time.sleep(0.005)
        self._answer(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Path("container.pid").write_text(str(os.getpid()))
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
