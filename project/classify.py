"""``POST /``: one text or a list of texts in, labels and scores out.

An ASGI application of its own: FastAPI's dependency injection, response validation and encoding
took most of a request's time outside the model (``python -m bench.container``). What it takes and
gives is described in ``project.openapi``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.types import Receive, Scope, Send

from project.access import CORTEX_REQUEST_ID, EXCHANGE, Exchange
from project.answers import Outcome, answer, error_result
from project.batching import DeadlineExceeded, Timings
from project.bodies import inflate, too_large
from project.engine import Engine, NotReady
from project.inputs import Limits, Submission, field_name, read_submission
from project.monitoring import Metrics
from project.problems import MEDIA_TYPE, Kind, Problem
from project.room import Aborted, Overloaded
from project.sentiment.prediction import Prediction, TextTooLong
from project.settings import Settings

logger = logging.getLogger(__name__)

LARGE_BODY_BYTES = 100_000  # takes about a millisecond to parse: more is done off the event loop
WATCH_AFTER_SECONDS = 0.1  # most requests are answered before it is worth it to watch the client
JSON = b"application/json"
PROBLEMS: dict[type[Exception], Kind] = {
    NotReady: Kind.NOT_READY,
    Aborted: Kind.NOT_READY,
    Overloaded: Kind.OVERLOADED,
    DeadlineExceeded: Kind.TIMEOUT,
}

T = TypeVar("T")


class ClientLeft(Exception):
    """Nobody would read the answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, ready to be sent."""

    body: bytes
    status: int = 200
    media_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send) -> None:
        """Never compressed: Cortex's dequeuer cannot read that."""
        length = str(len(self.body)).encode()
        headers = [(b"content-type", self.media_type), (b"content-length", length), *self.headers]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Classify:
    """The ASGI application of the route."""

    def __init__(self, engine: Engine, settings: Settings, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._errors_as_results = settings.errors_as_results
        self._timeout = settings.request_timeout_seconds
        self._limits = Limits(settings.max_body_bytes, settings.max_texts, settings.max_text_chars)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange: Exchange = scope[EXCHANGE]
        self._metrics.in_flight.inc()
        try:
            reply = Answer(await self._classify(scope, receive, exchange))
        except ClientLeft:
            exchange.kind, exchange.status = Kind.CLIENT_LEFT, Kind.CLIENT_LEFT.status
            return
        except Exception as error:
            reply = self._refusal(error, exchange)
        finally:
            self._metrics.in_flight.dec()
        await reply.send(send)

    async def _classify(self, scope: Scope, receive: Receive, exchange: Exchange) -> bytes:
        body = await self._read_body(receive, exchange)
        submission = await self._read_submission(body, scope, exchange)
        texts = [text for text in submission.texts if isinstance(text, str)]
        exchange.texts = len(submission.texts)
        exchange.timings = Timings()
        predictions: Sequence[Prediction | Exception] = ()
        if texts:
            predictions = await _unless_gone(
                receive,
                self._engine.classify(
                    texts, submission.on_long, exchange.timings,
                    patient=CORTEX_REQUEST_ID in exchange.headers,
                ),
            )  # fmt: skip
            _check_service(predictions)
        outcomes = self._outcomes(submission, predictions, exchange)
        return answer(submission, outcomes, self._engine.model)

    async def _read_body(self, receive: Receive, exchange: Exchange) -> bytes:
        limit = self._limits.body_bytes
        if int(exchange.headers.get(b"content-length", 0)) > limit:
            raise too_large(limit)
        try:
            async with asyncio.timeout(self._timeout):
                body, more = await self._read_chunk(receive, exchange)
                if not more:
                    return body
                chunks = bytearray(body)
                while more:
                    chunk, more = await self._read_chunk(receive, exchange)
                    chunks += chunk
        except TimeoutError as error:
            detail = f"body did not arrive in {self._timeout:g} s"
            raise Problem(Kind.SLOW_BODY, detail, field="body", limit=self._timeout) from error
        return bytes(chunks)

    async def _read_chunk(self, receive: Receive, exchange: Exchange) -> tuple[bytes, bool]:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft
        chunk: bytes = message.get("body", b"")
        exchange.received += len(chunk)
        if exchange.received > self._limits.body_bytes:
            raise too_large(self._limits.body_bytes)
        return chunk, message.get("more_body", False)

    async def _read_submission(self, body: bytes, scope: Scope, exchange: Exchange) -> Submission:
        def read() -> Submission:
            header = exchange.headers.get
            return read_submission(
                inflate(
                    body, header(b"content-encoding", b"").decode("latin-1"), limits.body_bytes
                ),
                header(b"content-type", b"").decode("latin-1"),
                scope["query_string"].decode(errors="surrogateescape"),
                header(b"x-envoy-original-path", b"").decode(errors="surrogateescape"),
                limits,
            )

        limits = self._limits
        if len(body) > LARGE_BODY_BYTES or b"content-encoding" in exchange.headers:
            return await asyncio.to_thread(read)
        return read()

    def _outcomes(
        self,
        submission: Submission,
        predictions: Sequence[Prediction | Exception],
        exchange: Exchange,
    ) -> list[Outcome]:
        """The predictions in their places among the problems; all are counted."""
        outcomes: list[Outcome] = []
        following = iter(predictions)
        for index, text in enumerate(submission.texts):
            outcome = text if isinstance(text, Problem) else next(following)
            if isinstance(outcome, Prediction):
                self._metrics.classified(outcome)
                exchange.tokens += outcome.tokens
                outcomes.append(outcome)
                continue
            if isinstance(outcome, TextTooLong):
                self._metrics.too_long()
            problem = _of_text(outcome, field_name(submission, index))
            if submission.single:
                raise problem
            self._metrics.error(problem.kind)
            outcomes.append(problem)
        return outcomes

    def _refusal(self, error: Exception, exchange: Exchange) -> Answer:
        problem = error if isinstance(error, Problem) else _as_problem(error)
        kind = exchange.kind = problem.kind
        if CORTEX_REQUEST_ID not in exchange.headers:
            return Answer(to_json(problem.members()), kind.status, MEDIA_TYPE, problem.headers())
        # Behind Cortex every status but 200 is an unexplained "failed": there, an error that is
        # the request's own is a result, and one of ours is 500, never "try again later".
        if kind.client_fault and self._errors_as_results:
            return Answer(error_result(problem))
        status = 500 if kind.status == 503 else kind.status
        return Answer(to_json(problem.members()), status, MEDIA_TYPE)


def _as_problem(error: Exception) -> Problem:
    kind = PROBLEMS.get(type(error))
    if kind is None:
        logger.error("a request failed", exc_info=error)
        return Problem(Kind.INTERNAL, "the service failed; its log has the reason")
    return Problem(kind, str(error))


def _check_service(predictions: Sequence[Prediction | Exception]) -> None:
    """Where the model fails every text, it is no text that is at fault: the request fails."""
    computed = [each for each in predictions if not isinstance(each, TextTooLong)]
    failures = [each for each in computed if isinstance(each, Exception)]
    if failures and len(failures) == len(computed):
        raise failures[0]


def _of_text(error: Exception, field: str) -> Problem:
    if isinstance(error, Problem):
        return error
    if isinstance(error, TextTooLong):
        return Problem(Kind.TEXT_TOO_LONG, f"{field} {error}", field=field, limit=error.limit)
    detail = f"{field} cannot be classified: the service failed; its log has the reason"
    return Problem(Kind.INTERNAL, detail, field=field)


async def _unless_gone(receive: Receive, answer: Coroutine[Any, Any, T]) -> T:
    """Await ``answer``, or cancel it when the client leaves.

    Raises:
        ClientLeft: the client has left.
    """
    loop, waiting = asyncio.get_running_loop(), asyncio.current_task()
    watchers: list[asyncio.Task[None]] = []
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        if waiting is not None:
            waiting.cancel()

    timer = loop.call_later(WATCH_AFTER_SECONDS, lambda: watchers.append(loop.create_task(watch())))
    try:
        return await answer
    except asyncio.CancelledError:
        if gone and waiting is not None and not waiting.uncancel():
            raise ClientLeft from None
        raise
    finally:
        timer.cancel()
        for watcher in watchers:
            watcher.cancel()
