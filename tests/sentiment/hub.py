"""A Hub on this machine: as much of its API as a download of a revision asks for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Repository:
    """A folder that is served under an id; its revisions name the same one commit.

    Attributes:
        asked: the files that were downloaded.
    """

    name: str
    folder: Path
    revisions: tuple[str, ...] = ("main",)
    asked: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        """40 hex digits."""
        return hashlib.sha1(self.name.encode(), usedforsecurity=False).hexdigest()

    def files(self) -> list[Path]:
        """What lies in the folder."""
        return sorted(path for path in self.folder.iterdir() if path.is_file())

    def answer(self, path: str) -> Any:  # noqa: ANN401  (JSON, or the path of a file)
        """What the Hub has at ``path``; None if there is nothing.

        Source: https://huggingface.co/docs/hub/api
        """
        api, _, revision = path.partition(f"/api/models/{self.name}/revision/")
        if not api and revision in (*self.revisions, self.commit):
            siblings = [{"rfilename": each.name} for each in self.files()]
            return {"id": self.name, "sha": self.commit, "siblings": siblings}
        if path == f"/api/models/{self.name}/tree/{self.commit}":
            return [
                {"type": "file", "path": each.name, "size": each.stat().st_size, "oid": etag(each)}
                for each in self.files()
            ]
        resolve, _, name = path.partition(f"/{self.name}/resolve/{self.commit}/")
        if not resolve and (self.folder / name).is_file():
            return self.folder / name
        return None


def etag(file: Path) -> str:
    """What the Hub calls a file's content."""
    return hashlib.sha1(file.read_bytes(), usedforsecurity=False).hexdigest()


@contextlib.contextmanager
def hub(repository: Repository) -> Iterator[str]:
    """Serve ``repository`` on a free port; yields the URL for ``HF_ENDPOINT``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = repository.answer(unquote(urlsplit(self.path).path))
            if isinstance(found, Path):
                body = found.read_bytes()
                headers = {"ETag": f'"{etag(found)}"', "X-Repo-Commit": repository.commit}
                repository.asked.append(found.name)
            else:
                body = json.dumps(found or {"error": "not found"}).encode()
                headers = {"Content-Type": "application/json"}
            missing = {"X-Error-Code": "RevisionNotFound"} if found is None else {}
            self.send_response(404 if found is None else 200)
            for name, value in {**headers, **missing, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Quietly."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
