"""A gateway for the client, without a network: answers by the text, and fails as it is told."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

import async_requests
from async_requests import AsyncAPIClient, Outcome, Policy

ENDPOINT = "http://gateway/sentiment"

Fault = httpx.Response | Exception | Callable[[], None] | None
"""What happens to a request: another answer, a broken connection, a call, nothing."""


class FakeGateway:
    """Most requests complete at their second poll; see :meth:`_predict` for the others.

    Args:
        keeps_ids: whether ``X-Request-Id`` becomes the id, as for internal clients of a cluster.
        old: whether a bad text fails its whole request, as older containers do.

    Attributes:
        faults: for the next requests, one each.
        submitted: id and texts of every submission that was taken, repeated ones too.
        requests: all requests, as "POST" or "GET <id>".
        most: the greatest number of unfinished requests.
    """

    def __init__(self, *, keeps_ids: bool = True, old: bool = False, polls: int = 2) -> None:
        self.keeps_ids = keeps_ids
        self.old = old
        self.polls_needed = polls
        self.faults: list[Fault] = []
        self.submitted: list[tuple[str, list[str]]] = []
        self.requests: list[str] = []
        self.headers: list[httpx.Headers] = []
        self.most = 0
        self.max_texts = 1000
        self._bodies: dict[str, str | list[str]] = {}
        self._polls: dict[str, int] = {}
        self.ended: set[str] = set()

    @property
    def transport(self) -> httpx.MockTransport:
        """For a client."""
        return httpx.MockTransport(self.handle)

    def texts(self) -> list[str]:
        """All texts that were submitted, in order."""
        return [text for _, texts in self.submitted for text in texts]

    def forget(self) -> None:
        """Lose all requests."""
        self._bodies.clear()

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        request_id = request.url.path.removeprefix("/sentiment").strip("/")
        self.requests.append(f"{request.method} {request_id}".strip())
        self.headers.append(request.headers)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, httpx.Response):
            return fault
        if isinstance(fault, Exception) and str(fault) != "after":
            raise fault
        answer = self._submit(request) if request.method == "POST" else self._poll(request_id)
        if isinstance(fault, Exception):
            raise fault
        if callable(fault):
            fault()
        return answer

    def _submit(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)["input_text"]
        request_id = request.headers["X-Request-Id"] if self.keeps_ids else str(uuid.uuid4())
        self.submitted.append((request_id, [body] if isinstance(body, str) else body))
        self._bodies[request_id] = body
        self.most = max(self.most, len(self._bodies.keys() - self.ended))
        return httpx.Response(200, json={"id": request_id})

    def _poll(self, request_id: str) -> httpx.Response:
        if request_id not in self._bodies:
            return httpx.Response(404, text=f"error: id {request_id} not found")
        self._polls[request_id] = self._polls.get(request_id, 0) + 1
        body = self._bodies[request_id]
        answer: dict[str, object] = {"id": request_id, "status": "in_queue"}
        texts = [body] if isinstance(body, str) else body
        if "crash" in texts:
            answer["status"] = "failed"
        elif self._polls[request_id] >= self.polls_needed and "stuck" not in texts:
            answer |= {"status": "completed", "result": self._result(body)}
        if answer["status"] != "in_queue":
            self.ended.add(request_id)
        return httpx.Response(200, json=answer)

    def _result(self, body: str | list[str]) -> object:
        if isinstance(body, str):
            return self._predict(body, 0)
        if len(body) > self.max_texts:
            limit = f"input_text holds {len(body)} texts, at most {self.max_texts} are taken"
            error = {"status": 422, "title": "too many", "detail": limit, "field": "input_text"}
            return {"error": error}
        predictions = [self._predict(text, index) for index, text in enumerate(body)]
        if self.old:
            for each in predictions:
                if isinstance(each, dict) and "error" in each:
                    return each
        return {"predictions": predictions, "model": "fake"}

    def _predict(self, text: str, index: int) -> object:
        field = f"input_text[{index}]"
        special: dict[str, object] = {
            "": {"error": {"message": f"{field} is empty", "field": field}},
            "blank": {"error": {"status": 422, "detail": f"{field} is blank", "field": field}},
            "busy": {"error": {"status": 503, "detail": "too much waits"}},
            "odd": {"error": "odd"},
            "null": None,
        }
        return special.get(text, {"label": "POSITIVE" if len(text) % 2 else "NEGATIVE", "score": 1})


FAST = Policy(batch_size=1, window=4, concurrency=2, timeout=5.0, retry_for=5.0)


async def classify(
    gateway: FakeGateway,
    texts: Sequence[str],
    policy: Policy = FAST,
    state: Path | None = None,
) -> list[Outcome]:
    """What a client makes of ``texts``."""
    async with AsyncAPIClient(ENDPOINT, policy, transport=gateway.transport) as client:
        return [outcome async for outcome in client.map(texts, state=state)]


def command(gateway: FakeGateway, *arguments: str) -> int:
    """Run the command line against a gateway; returns the exit code."""
    return async_requests.main(["--endpoint", ENDPOINT, *arguments], transport=gateway.transport)
