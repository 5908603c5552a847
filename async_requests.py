# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx", "rich"]
# ///
"""Classifies texts through a sentiment AsyncAPI: submit, poll, results in the order of the input.

    python async_requests.py "i like you" "i hate you"
    python async_requests.py --file reviews.csv --column text --output results.csv
    cat reviews.txt | python async_requests.py - > results.jsonl
    python async_requests.py --file big.csv.gz --output results.csv --state run.state

With --state the same command goes on after Ctrl-C, a kill or a reboot; nothing is submitted twice.
Exit code: 0 all completed, 1 some failed or it was cut short, 2 could not run, 130 interrupted.

This one file needs httpx, and rich for the live display; it can be copied anywhere. As a library:

    async with AsyncAPIClient("http://localhost:8888/sentiment") as client:
        async for outcome in client.map(texts):
            print(outcome.label, outcome.score, outcome.error)

The errors:

    ClientError
    +-- CannotRun           nothing can be done: no gateway, a wrong endpoint, an unusable file
    |   +-- StateError      the state file is another run's, in use, or damaged
    |   +-- InputError      the input cannot be read
    +-- RequestError        one request will not be answered
        +-- Refused         the request is at fault; sent in parts it may do
        +-- ServiceFailed   the service is at fault; sent again it may do
        +-- UnknownId       the gateway does not know the id: it was never queued, or is forgotten
"""

from __future__ import annotations

import argparse
import asyncio
import codecs
import contextlib
import csv
import email.utils
import gzip
import hashlib
import importlib
import importlib.util
import io
import itertools
import json
import logging
import os
import random
import re
import shlex
import signal
import sqlite3
import stat
import sys
import threading
import time
import uuid
import zlib
from array import array
from collections import Counter, deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar
from urllib.parse import quote

VENV = (Path(__file__).parent / ".venv").resolve()


def _missing() -> list[str]:
    return [name for name in ("httpx", "rich") if importlib.util.find_spec(name) is None]


if __name__ == "__main__":
    lacking = _missing()
    if sys.version_info < (3, 11) or lacking:
        # `make run` has installed both into .venv: `python async_requests.py` finds them there.
        if (VENV / "bin/python").exists() and Path(sys.prefix).resolve() != VENV:
            os.execv(VENV / "bin/python", [str(VENV / "bin/python"), *sys.argv])  # noqa: S606
        if sys.version_info < (3, 11) or "httpx" in lacking:
            print("needs Python 3.11 or newer and httpx: pip install httpx rich", file=sys.stderr)
            sys.exit(2)

    if importlib.util.find_spec("sniffio") is None:
        # httpcore tries to import it with every request; to search for it is a third of the cost.
        sys.modules["sniffio"] = None  # type: ignore[assignment]

import httpx  # noqa: E402  (not before its absence was dealt with)

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live

__version__ = "0.1.0"
__all__ = [
    "AsyncAPIClient",
    "CannotRun",
    "ClientError",
    "InputError",
    "Outcome",
    "Policy",
    "Refused",
    "RequestError",
    "ServiceFailed",
    "StateError",
    "Traffic",
    "UnknownId",
]

logger = logging.getLogger("async_requests")

ENDPOINT = "http://localhost:8888/sentiment"
SAMPLE_TEXTS = (
    "i like you",
    "i hate you",
    "the food was wonderful",
    "the food was cold and the waiter rude",
    "not bad at all",
    "i have never been so bored in my life",
    "best purchase i made this year",
    "it broke after two days",
    "it is a film about a train",
)

EXIT_OK, EXIT_FAILED, EXIT_CANNOT_RUN, EXIT_INTERRUPTED = 0, 1, 2, 130

T = TypeVar("T")
Key = tuple[int, int, int]
"""A request of a run: the number of its first row, how many texts it has, the attempt."""


# --- errors ---------------------------------------------------------------------------------------


class ClientError(Exception):
    """Base of all errors here; the text is for people."""


class CannotRun(ClientError):
    """Nothing can be done: the text says what is in the way."""


class StateError(CannotRun):
    """The state file is another run's, in use, or damaged."""


class InputError(CannotRun):
    """The input cannot be read."""


class RequestError(ClientError):
    """One request will not be answered.

    Attributes:
        request_id: its id, if it was submitted.
    """

    request_id: str | None = None


class Refused(RequestError):
    """The request is at fault.

    Attributes:
        index: of the text that is at fault, if one is.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason)
        self.index = index


class ServiceFailed(RequestError):
    """The service is at fault: the request ended without a result."""


class UnknownId(RequestError):
    """The gateway does not know the id: the request was never queued, or is forgotten."""


class Stopped(ClientError):
    """The run was told to submit nothing more."""


class _Trouble(ClientError):
    """An exchange that may succeed when it is tried again.

    Attributes:
        arrived: whether the request may have arrived all the same.
        retry_after: seconds that the gateway asks to wait.
        connect: whether no connection came about.
    """

    def __init__(
        self,
        reason: str,
        *,
        arrived: bool = True,
        retry_after: float | None = None,
        connect: bool = False,
    ) -> None:
        super().__init__(reason)
        self.arrived = arrived
        self.retry_after = retry_after
        self.connect = connect


# --- records --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are sent.

    Attributes:
        batch_size: texts in a request.
        window: requests that are submitted and not finished, at most.
        concurrency: connections at once.
        timeout: seconds from the submission of a request to its result.
        retry_for: seconds without any good answer after which the gateway counts as gone.
        retry_failed: how often a request that ended as ``failed`` is submitted again.
    """

    batch_size: int = 32
    window: int = 128
    concurrency: int = 16
    timeout: float = 900.0
    retry_for: float = 120.0
    retry_failed: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one text: a result, or an error that says why there is none.

    Attributes:
        id: of the request that it was sent with; None if it never was.
        result: what the service said of the text, as it said it.
    """

    text: str
    id: str | None = None
    result: Mapping[str, object] | None = None
    error: str | None = None

    @property
    def label(self) -> str | None:
        """The label, such as POSITIVE."""
        label = None if self.result is None else self.result.get("label")
        return None if label is None else str(label)

    @property
    def score(self) -> float | None:
        """The probability of the label, from 0 to 1."""
        score = None if self.result is None else self.result.get("score")
        return score if isinstance(score, int | float) else None


Verdict = Mapping[str, object] | str
"""What the service says of one text: a prediction, or why there is none."""


@dataclass(frozen=True, slots=True)
class Job:
    """Texts that begin as one request.

    Attributes:
        first: the number of the first row, from 0.
        end: the number of the row after the last.
        payload: whatever belongs to it; it comes back with the outcomes.
    """

    first: int
    end: int
    texts: tuple[str, ...]
    payload: Any = None


@dataclass(slots=True)
class Traffic:
    """What a client has done so far, in texts and in HTTP requests.

    Attributes:
        in_queue, in_progress, completed, failed: texts, by the last that is known of them.
        posts, polls: HTTP requests, the repeated ones included.
        retries: exchanges that were tried again.
        splits: requests that were refused whole and sent again in parts.
        resubmitted: requests that ended as ``failed``, or were forgotten, and were sent again.
        latencies: seconds from submission to result, of requests; a sample if there are many.
    """

    in_queue: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    posts: int = 0
    polls: int = 0
    retries: int = 0
    splits: int = 0
    resubmitted: int = 0
    requests: int = 0
    latencies: array[float] = field(default_factory=lambda: array("d"))

    SAMPLE = 100_000

    @property
    def finished(self) -> int:
        """Texts that have an outcome."""
        return self.completed + self.failed

    def move(self, count: int, before: str, after: str) -> None:
        """Count ``count`` texts under another status; "" is none."""
        if before:
            setattr(self, before, getattr(self, before) - count)
        if after:
            setattr(self, after, getattr(self, after) + count)

    def took(self, seconds: float) -> None:
        """A request has ended."""
        self.requests += 1
        if len(self.latencies) < self.SAMPLE:
            self.latencies.append(seconds)
        elif (place := random.randrange(self.requests)) < self.SAMPLE:  # noqa: S311  (no secret)
            self.latencies[place] = seconds


# --- what goes over the wire ----------------------------------------------------------------------

STATUSES = ("in_queue", "in_progress", "completed", "failed")


def encode_texts(texts: Sequence[str]) -> bytes:
    """The body of a request; a lone text is sent as such, and comes back as such."""
    return json.dumps({"input_text": texts[0] if len(texts) == 1 else texts}).encode()


def read_object(response: httpx.Response) -> dict[str, object]:
    """The JSON object in an answer.

    Raises:
        RequestError: there is none.
    """
    try:
        answer = json.loads(response.content)
    except ValueError:
        raise RequestError(f"the answer is not JSON: {response.text[:200]!r}") from None
    if not isinstance(answer, dict):
        raise RequestError(f"the answer is no object: {response.text[:200]!r}")
    return answer


def read_verdicts(result: object, count: int) -> list[Verdict]:
    """What the result of a request says of each of its ``count`` texts.

    Raises:
        Refused, ServiceFailed: it says that all of them were not classified.
        RequestError: it is nothing that a sentiment service answers.
    """
    if not isinstance(result, dict):
        raise RequestError(f"the result is no object: {result!r}")
    if "error" in result:
        raise _whole_error(result["error"])
    if count == 1 and "predictions" not in result:
        return [result]
    predictions = result.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != count:
        found = len(predictions) if isinstance(predictions, list) else "no"
        raise RequestError(f"the result has {found} predictions for {count} texts")
    shared = {"model": result["model"]} if "model" in result else {}
    return [_verdict(each, shared) for each in predictions]


def _verdict(prediction: object, shared: Mapping[str, object]) -> Verdict:
    if not isinstance(prediction, dict):
        return f"the prediction is no object: {prediction!r}"
    if "error" in prediction:
        return _reason(prediction["error"])
    return {**prediction, **shared}


_INDEXED = re.compile(r"input_text\[(\d+)\]")


def _reason(error: object) -> str:
    """The words of an error, without the index that the text had in its request."""
    words = error
    if isinstance(error, dict):
        named = (error.get(name) for name in ("detail", "message", "title"))
        words = next((each for each in named if each), error)
    return _INDEXED.sub("input_text", str(words))


def _whole_error(error: object) -> RequestError:
    fields = error if isinstance(error, dict) else {}
    status = fields.get("status")
    if isinstance(status, int) and (status >= 500 or status == 429):
        return ServiceFailed(_reason(error))
    at_fault = _INDEXED.match(str(fields.get("field", "")))
    return Refused(_reason(error), int(at_fault[1]) if at_fault else None)


def read_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After``: a number of them, or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _said(response: httpx.Response) -> str:
    """Status and first words of an answer, for people."""
    words = " ".join(response.text.split())[:200]
    return f"HTTP {response.status_code}" + (f": {words}" if words else "")


# --- when to ask again ----------------------------------------------------------------------------

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 10.0
"""Seconds between polls of a request, at least and at most."""

AGE_SHARE = 0.35
"""Of a request's age, until it is polled again: back-off that is never far behind the result."""

RANK_SHARE = 0.8
"""Of the time that a request's rank lets expect: asking early corrects an estimate."""

PACE_SAMPLES = 32
"""Ends from which the pace is taken."""

MAX_STRIKES = 12
PROBE_SECONDS = 1.0
"""Troubles of one exchange, one after the other, while the gateway answers others."""


def jitter(seconds: float) -> float:
    """``seconds``, give or take a fifth: those who wait together do not come back together."""
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311  (no secret)


class Pace:
    """Decides when a request is polled, so that most are polled about once.

    A queue is served in order: a request is due when those that were submitted before it have
    ended, and they end at a pace that can be seen. What this misses is found in two ways. A request
    that is not finished when it is due is polled again with exponential back-off. One that is
    finished at its first poll may have been so for long, and those behind it too: the next two that
    were never polled are polled at once, and so on, as long as it goes well. With every request
    that is finished, the oldest of those that back off is polled too: a container that computes
    many requests together ends them together.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin = clock()
        self._submitted = 0
        self._ended = 0
        self._ends: deque[float] = deque(maxlen=PACE_SAMPLES)
        self._unpolled: dict[int, asyncio.Event] = {}
        self._polled: dict[int, asyncio.Event] = {}

    def submitted(self) -> int:
        """A request was submitted; returns its rank in the run."""
        if self._submitted == self._ended:
            self._begin = self._clock()
        self._submitted += 1
        return self._submitted

    def ended(self, polls: int) -> None:
        """A request has ended, which its ``polls``-th poll has shown."""
        self._ended += 1
        self._ends.append(self._clock())
        if polls == 1:
            self._wake(self._unpolled, 2)
        if polls:
            self._wake(self._polled, 1)

    async def wait(self, rank: int, since: float, polls: int) -> None:
        """Wait until a request that was submitted ``since`` is to be polled once more."""
        seconds, waiting = self.due(rank), self._unpolled
        if polls:
            seconds, waiting = self.back_off(since), self._polled
        event = waiting[rank] = asyncio.Event()
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            pass
        finally:
            waiting.pop(rank, None)

    @staticmethod
    def _wake(waiting: dict[int, asyncio.Event], count: int) -> None:
        for rank in sorted(waiting)[:count]:
            waiting.pop(rank).set()

    def due(self, rank: int) -> float:
        """Seconds until a request is probably finished, somewhat less."""
        return _pause(max(0, rank - self._ended) * self._interval() * RANK_SHARE)

    def back_off(self, since: float) -> float:
        """Seconds until a request that is submitted since then is polled again."""
        return _pause((self._clock() - since) * AGE_SHARE)

    def _interval(self) -> float:
        """Seconds from one end to the next, lately."""
        if len(self._ends) > 1:
            return (self._ends[-1] - self._ends[0]) / (len(self._ends) - 1)
        return (self._ends[0] if self._ends else self._clock()) - self._begin


def _pause(seconds: float) -> float:
    return jitter(min(LONGEST_PAUSE, max(FIRST_PAUSE, seconds)))


class _Patience:
    """The retries of one exchange: back-off with jitter, and an end to it."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._pause = 0.1
        self._strikes = 0
        self._last = -1.0

    async def wait(self, trouble: _Trouble) -> None:
        """Wait before the exchange is tried again.

        Raises:
            RequestError: it has failed too often while the gateway answered others.
            CannotRun: the gateway has answered nothing for too long.
        """
        self._wire.check_alive(trouble)
        if trouble.retry_after is None and self._wire.last_good > self._last:
            self._strikes += 1
            if self._strikes > MAX_STRIKES:
                raise RequestError(f"{trouble}, {self._strikes} times") from trouble
        self._last = time.monotonic()
        pause = jitter(self._pause)
        if trouble.retry_after is not None:
            pause = max(pause, trouble.retry_after * random.uniform(1.0, 1.25))  # noqa: S311
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        self._wire.traffic.retries += 1
        await asyncio.sleep(pause)
        await self._ask_for_another(pause)

    async def _ask_for_another(self, pause: float) -> None:
        """Find out whether the gateway answers nothing, or only not this, when nobody else asks."""
        if self._wire.proven and pause > PROBE_SECONDS and self._wire.last_good <= self._last:
            with contextlib.suppress(ClientError):
                await self._wire.poll(str(uuid.uuid4()))


# --- the gateway over HTTP ------------------------------------------------------------------------

KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s of many servers: a connection is not used in the moment it is closed."""


class _Connections:
    """HTTP clients with a connection each, made when they are needed.

    One client with a pool looks at all of its connections before and after every request; with 16
    of them that is more work than the request.

    Args:
        connect: makes a client.
    """

    def __init__(self, connect: Callable[[], httpx.AsyncClient]) -> None:
        self._connect = connect
        self._clients: list[httpx.AsyncClient] = []
        # The last one first: it is most likely still connected.
        self._free: asyncio.LifoQueue[httpx.AsyncClient | None] = asyncio.LifoQueue()

    def allow(self, count: int) -> None:
        """Allow ``count`` more."""
        for _ in range(count):
            self._free.put_nowait(None)

    @contextlib.asynccontextmanager
    async def lend(self) -> AsyncIterator[httpx.AsyncClient]:
        """One that nobody else uses."""
        client = await self._free.get()
        if client is None:
            client = self._connect()
            self._clients.append(client)
        try:
            yield client
        finally:
            self._free.put_nowait(client)

    async def close(self) -> None:
        """Close all."""
        for client in self._clients:
            await client.aclose()


class Wire:
    """The two requests that a gateway knows, each with its own retries.

    Args:
        endpoint: of the API, such as http://localhost:8888/sentiment.
        headers: for every request.
        transport: instead of the network, for tests.

    Attributes:
        last_good: when the gateway last answered, on the monotonic clock.
    """

    def __init__(
        self,
        endpoint: str,
        policy: Policy,
        traffic: Traffic,
        *,
        headers: Sequence[tuple[str, str]] = (),
        transport: httpx.AsyncBaseTransport | None = None,
        verify: bool = True,
    ) -> None:
        self._url = parse_endpoint(endpoint)
        self._policy = policy
        self.traffic = traffic
        self._headers = _request_headers(headers)
        secure = self._url.scheme == "https"
        context = httpx.create_ssl_context(verify=verify) if secure else False
        self._connections = _Connections(
            lambda: httpx.AsyncClient(
                timeout=httpx.Timeout(30.0, connect=10.0),
                limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
                transport=transport,
                verify=context,
            )
        )
        # One at a time until one has succeeded: a wrong endpoint is not hit sixteenfold.
        self._connections.allow(1)
        self._proven = False
        self._not_before = 0.0
        self._trouble_since: float | None = None
        self.last_good = time.monotonic()

    @property
    def proven(self) -> bool:
        """Whether the endpoint has answered as an AsyncAPI does."""
        return self._proven

    async def close(self) -> None:
        """Close the connections."""
        await self._connections.close()

    async def post(self, request_id: str, body: bytes) -> str:
        """Submit once; returns the id that the gateway gave, ours if it keeps ids.

        Raises:
            _Trouble: it may succeed when it is tried again.
            Refused: the request is at fault.
            CannotRun: the endpoint is no AsyncAPI's, or does not let us in.
        """
        await self._hold()
        self.traffic.posts += 1
        response = await self._exchange("POST", self._url, request_id, body)
        if response.status_code == 200:
            return self._accepted(response)
        if response.status_code in {413, 422} and self._proven:
            raise Refused(_said(response))
        raise self._wrong(response)

    async def poll(self, request_id: str) -> dict[str, object]:
        """The status object of a request, asked for once.

        Raises:
            _Trouble: it may succeed when it is tried again.
            UnknownId: the gateway has no such request.
            RequestError: the answer is no status object.
            CannotRun: the endpoint is no AsyncAPI's, or does not let us in.
        """
        self.traffic.polls += 1
        path = self._url.raw_path + b"/" + quote(request_id, safe="").encode()
        url = self._url.copy_with(raw_path=path)
        response = await self._exchange("GET", url)
        if response.status_code == 200:
            answer = read_object(response)
            if answer.get("status") not in STATUSES:
                raise RequestError(f"the answer has no status: {response.text[:200]!r}")
            self._prove()
            return answer
        if response.status_code == 404 and response.text.startswith("error: id "):
            self._prove()
            raise UnknownId(f"the gateway does not know id {request_id}")
        raise self._wrong(response)

    async def patient_poll(self, request_id: str) -> dict[str, object]:
        """Like :meth:`poll`, tried again as long as that may help."""
        patience = _Patience(self)
        while True:
            try:
                return await self.poll(request_id)
            except _Trouble as trouble:
                await patience.wait(trouble)

    def check_alive(self, trouble: _Trouble) -> None:
        """Say that the gateway is gone if it is.

        Raises:
            CannotRun: it has answered nothing for too long.
        """
        if trouble.connect and not self._proven:
            raise CannotRun(f"{self._url} cannot be reached: {trouble}") from trouble
        # A gateway that asks to wait is not gone; one that asks for ever is of no use.
        limit = self._policy.retry_for if trouble.retry_after is None else self._policy.timeout
        now = time.monotonic()
        self._trouble_since = self._trouble_since or now
        if now - self._trouble_since > limit:
            text = f"{self._url} has given no good answer for {limit:g} s: {trouble}"
            raise CannotRun(text) from trouble

    async def _hold(self) -> None:
        """Wait until the gateway wants to be asked again."""
        if (pause := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(pause * random.uniform(1.0, 1.25))  # noqa: S311

    async def _exchange(
        self, method: str, url: httpx.URL, request_id: str = "", body: bytes = b""
    ) -> httpx.Response:
        headers = self._headers
        if request_id:
            headers = [*headers, (b"X-Request-Id", request_id.encode())]
        # The client's own build_request merges what is merged already: a fifth of the cost.
        request = httpx.Request(method, url, headers=headers, content=body or None)
        async with self._connections.lend() as http:
            try:
                response = await http.send(request)
            except httpx.ConnectError as error:
                raise _Trouble(_words(error), arrived=False, connect=True) from error
            except (httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                raise _Trouble(_words(error), arrived=False, connect=True) from error
            except (httpx.TransportError, httpx.DecodingError) as error:
                raise _Trouble(_words(error)) from error
        self._check_busy(response)
        if response.status_code not in {404, 405} or response.text.startswith("error: id "):
            self.last_good = time.monotonic()
            self._trouble_since = None
        return response

    def _check_busy(self, response: httpx.Response) -> None:
        status = response.status_code
        if status < 500 and status != 429:
            return
        if "cannot unmarshal" in response.text:  # for good, says Cortex's gateway of such a result
            raise RequestError(_said(response))
        retry_after = read_retry_after(response.headers.get("Retry-After"))
        if retry_after is not None:
            self._not_before = max(self._not_before, time.monotonic() + retry_after)
        raise _Trouble(_said(response), arrived=status != 429, retry_after=retry_after)

    def _accepted(self, response: httpx.Response) -> str:
        try:
            found = read_object(response).get("id")
        except RequestError as error:
            found, problem = None, str(error)
        else:
            problem = f"the answer has no id: {response.text[:80]!r}"
        if isinstance(found, str) and found:
            self._prove()
            return found
        if self._proven:
            raise RequestError(problem)
        raise CannotRun(f"{self._url} is no AsyncAPI's endpoint, or the container's: {problem}")

    def _prove(self) -> None:
        if not self._proven:
            self._proven = True
            self._connections.allow(self._policy.concurrency - 1)

    def _wrong(self, response: httpx.Response) -> Exception:
        """The error for an answer that is neither good nor to be tried again as it is."""
        status = response.status_code
        if status in {404, 405} and self._proven:  # a gateway that is being replaced
            return _Trouble(_said(response))
        if status in {404, 405}:
            return CannotRun(
                f"{self._url} is not there ({_said(response)}): is the name of the API right?"
            )
        if response.is_redirect:
            target = response.headers.get("Location", "")
            return CannotRun(f"{self._url} has moved to {target}: give that as the endpoint")
        if status in {401, 403}:
            return CannotRun(f"{self._url} does not let us in ({_said(response)}): see --header")
        if self._proven:
            return RequestError(_said(response))
        return CannotRun(f"{self._url} refuses requests: {_said(response)}")


def parse_endpoint(endpoint: str) -> httpx.URL:
    """The URL of an API, without a slash at its end.

    Raises:
        CannotRun: it is none.
    """
    try:
        url = httpx.URL(endpoint)
    except (httpx.InvalidURL, ValueError) as error:
        raise CannotRun(f"the endpoint {endpoint!r} is no URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host or url.query:
        raise CannotRun(f"the endpoint {endpoint!r} must be http://host/name or https://host/name")
    return url.copy_with(raw_path=url.raw_path.rstrip(b"/") or b"/")


def _request_headers(own: Sequence[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    # No compression: the container gets this header too, and Cortex does not decode its answer.
    fields = {
        "accept": "application/json",
        "accept-encoding": "identity",
        "content-type": "application/json",
        "user-agent": f"async_requests/{__version__}",
    }
    fields |= {name.lower(): value for name, value in own}
    return [(name.title().encode(), value.encode()) for name, value in fields.items()]


def _words(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name}: {error}" if str(error) else name


# --- which ids belong to a run --------------------------------------------------------------------


class Journal:
    """The ids of a run's requests. This one keeps nothing; :class:`StateFile` does.

    An id is decided before its request is sent, from the run and the request's place in it. A
    gateway that keeps the ``X-Request-Id`` of its clients can then be asked, whatever has happened,
    whether it has the request; one that does not answers 404, and gives an id of its own.
    """

    def __init__(self, run: uuid.UUID | None = None) -> None:
        self.run = run or uuid.uuid4()

    def intended(self, key: Key) -> str:
        """The id that we ask for."""
        return str(uuid.uuid5(self.run, "{}+{}.{}".format(*key)))

    def known(self, key: Key, digest: bytes) -> str | None:
        """The id under which the request was submitted, as far as is recorded."""
        return None

    def may_be_sent(self, key: Key) -> bool:
        """Whether it may have been submitted although nothing is recorded."""
        return False

    async def reserve(self, end: int) -> None:
        """Requests of rows before ``end`` are going to be sent."""

    async def submitted(self, key: Key, digest: bytes, request_id: str) -> None:
        """Record an id; it is on disk on return."""


# --- the client -----------------------------------------------------------------------------------


BATCH_CHARS = 100_000
"""Characters after which no text is added to a request: memory and latency are bounded."""


class AsyncAPIClient:
    """Classifies texts through an AsyncAPI.

    Args:
        endpoint: of the API, such as http://localhost:8888/sentiment.
        policy: how requests are sent.
        headers: for every request, such as ("Authorization", "Bearer ...").
        transport: instead of the network, for tests.
        verify: check the certificate of an https endpoint.

    Attributes:
        traffic: what was done so far.

    Raises:
        CannotRun: the endpoint is no URL.
    """

    def __init__(
        self,
        endpoint: str = ENDPOINT,
        policy: Policy | None = None,
        *,
        headers: Sequence[tuple[str, str]] = (),
        transport: httpx.AsyncBaseTransport | None = None,
        verify: bool = True,
    ) -> None:
        self.policy = policy or Policy()
        self.traffic = Traffic()
        self._endpoint = endpoint
        self._wire = Wire(
            endpoint, self.policy, self.traffic, headers=headers, transport=transport, verify=verify
        )
        self._unfinished = asyncio.Semaphore(self.policy.window)
        self._pace = Pace()
        self._stopping = asyncio.Event()
        self._failed_in_a_row = 0

    async def __aenter__(self) -> AsyncAPIClient:
        """Nothing is sent yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    def stop(self) -> None:
        """Submit nothing more: what is submitted is waited for, and :meth:`map` ends after it."""
        self._stopping.set()

    async def wait_ready(self, seconds: float) -> None:
        """Wait until the service answers: until a sample text, submitted as any other, completes.

        The gateway's own /healthz says nothing of the container behind it, and no other path of
        the container can be reached through a gateway.

        Raises:
            CannotRun: it does not within ``seconds``.
        """
        reason = "no answer"
        try:
            async with asyncio.timeout(seconds):
                while True:
                    try:
                        await self._sample()
                    except ClientError as error:
                        reason = str(error)
                        await asyncio.sleep(jitter(1.0))
                    else:
                        return
        except TimeoutError:
            raise CannotRun(
                f"{self._endpoint} is not ready after {seconds:g} s: {reason}"
            ) from None

    async def map(
        self, texts: Iterable[str] | AsyncIterable[str], *, state: Path | str | None = None
    ) -> AsyncIterator[Outcome]:
        """Classify ``texts``; the outcomes come in the texts' order, as soon as they are known.

        Args:
            state: a file that keeps the ids. A later call with the same texts asks for the results
                of what was submitted, and submits the rest.

        Raises:
            CannotRun: the service cannot be used.
        """
        with contextlib.ExitStack() as stack:
            journal = Journal()
            if state is not None:
                options = {"endpoint": self._endpoint, "batch_size": self.policy.batch_size}
                opened = StateFile(Path(state), options)
                stack.callback(opened.close)
                opened.load(0)
                journal = opened
            jobs = _jobs(texts, self.policy.batch_size)
            async with contextlib.aclosing(self.run(jobs, journal)) as finished:
                async for _, outcomes in finished:
                    for outcome in outcomes:
                        yield outcome

    async def run(
        self, jobs: AsyncIterator[Job], journal: Journal
    ) -> AsyncGenerator[tuple[Job, list[Outcome]], None]:
        """Classify jobs; each comes back with its outcomes, in order.

        Raises:
            CannotRun: the service cannot be used.
        """
        line = _Line(self, journal)
        line.feed(jobs)
        try:
            with contextlib.suppress(Stopped):
                async for each in line:
                    yield each
        finally:
            await line.close()

    async def classify(self, job: Job, journal: Journal) -> list[Outcome]:
        """The outcomes of one job."""
        if not job.texts:
            return []
        return await self._classify(job.first, job.texts, journal)

    async def _classify(
        self, first: int, texts: tuple[str, ...], journal: Journal
    ) -> list[Outcome]:
        attempt, left = 0, self.policy.retry_failed
        forgotten = 0
        while True:
            try:
                return await self._once((first, len(texts), attempt), texts, journal)
            except Refused as error:
                return await self._in_parts(first, texts, journal, error)
            except UnknownId as error:
                if (forgotten := forgotten + 1) > MAX_STRIKES:
                    return self._failures(texts, error)
                logger.warning("%s: submitted again", error)
            except ServiceFailed as error:
                if left == 0:
                    return await self._after_failure(first, texts, journal, error)
                left -= 1
            except RequestError as error:
                return self._failures(texts, error)
            self.traffic.resubmitted += 1
            attempt += 1

    async def _after_failure(
        self, first: int, texts: tuple[str, ...], journal: Journal, error: ServiceFailed
    ) -> list[Outcome]:
        # One text can bring down a request of many; but if nothing works, parts do not either.
        if len(texts) == 1 or self._failed_in_a_row > 2 * self.policy.window:
            return self._failures(texts, error)
        return await self._in_parts(first, texts, journal, error)

    async def _in_parts(
        self, first: int, texts: tuple[str, ...], journal: Journal, error: RequestError
    ) -> list[Outcome]:
        """Send again, without the text that is at fault or else in halves."""
        if len(texts) == 1:
            return self._failures(texts, error)
        self.traffic.splits += 1
        logger.warning("a request of %d texts was refused (%s): sent in parts", len(texts), error)
        bad = error.index if isinstance(error, Refused) else None
        if bad is None or bad >= len(texts):
            cuts = [(0, len(texts) // 2), (len(texts) // 2, len(texts))]
        else:
            cuts = [(0, bad), (bad + 1, len(texts))]
        parts = await _all(
            self._classify(first + start, texts[start:end], journal)
            for start, end in cuts
            if start < end
        )
        outcomes = [outcome for part in parts for outcome in part]
        if len(outcomes) < len(texts) and bad is not None:
            outcomes[bad:bad] = self._failures(texts[bad : bad + 1], error)
        return outcomes

    async def _once(self, key: Key, texts: tuple[str, ...], journal: Journal) -> list[Outcome]:
        """Submit one request, unless it is, and wait for its end."""
        async with self._unfinished:
            body = encode_texts(texts)
            digest = hashlib.sha256(body).digest()[:16]
            request_id = known = journal.known(key, digest)
            since = time.monotonic()
            if request_id is None:
                if self._stopping.is_set():
                    raise Stopped
                request_id = await self._submit(key, body, journal)
                await journal.submitted(key, digest, request_id)
            try:
                result = await self._result(request_id, len(texts), since, at_once=bool(known))
                return self._outcomes(texts, request_id, read_verdicts(result, len(texts)))
            except RequestError as error:
                error.request_id = request_id
                raise

    async def _submit(self, key: Key, body: bytes, journal: Journal) -> str:
        """Submit until the gateway has the request; ask before sending what may have arrived."""
        intended = journal.intended(key)
        ask = journal.may_be_sent(key)
        patience = _Patience(self._wire)
        while True:
            try:
                if ask:
                    with contextlib.suppress(UnknownId):
                        await self._wire.poll(intended)
                        return intended
                return await self._wire.post(intended, body)
            except _Trouble as trouble:
                ask = ask or trouble.arrived
                await patience.wait(trouble)

    async def _result(
        self, request_id: str, count: int, since: float, *, at_once: bool = False
    ) -> object:
        """Poll until the request has ended; returns its result.

        Raises:
            ServiceFailed: it has none.
            RequestError: it took too long.
        """
        rank = self._pace.submitted()
        status, polls = "in_queue", 0
        self.traffic.move(count, "", status)
        try:
            while True:
                if polls or not at_once:
                    await self._pace.wait(rank, since, polls)
                answer = await self._wire.patient_poll(request_id)
                polls += 1
                now = str(answer["status"])
                if now in {"completed", "failed"}:
                    return self._ended(answer, since)
                self.traffic.move(count, status, now)
                status = now
                if time.monotonic() - since > self.policy.timeout:
                    raise RequestError(f"{status} after {self.policy.timeout:g} s")
        finally:
            self._pace.ended(polls)
            self.traffic.move(count, status, "")

    def _ended(self, answer: Mapping[str, object], since: float) -> object:
        self.traffic.took(time.monotonic() - since)
        if answer["status"] == "failed":
            self._failed_in_a_row += 1
            raise ServiceFailed("failed; the service's log has the reason")
        self._failed_in_a_row = 0
        return answer.get("result")

    def _outcomes(
        self, texts: Sequence[str], request_id: str, verdicts: Sequence[Verdict]
    ) -> list[Outcome]:
        outcomes = [
            Outcome(text, request_id, error=verdict)
            if isinstance(verdict, str)
            else Outcome(text, request_id, result=verdict)
            for text, verdict in zip(texts, verdicts, strict=True)
        ]
        failed = sum(outcome.error is not None for outcome in outcomes)
        self.traffic.move(failed, "", "failed")
        self.traffic.move(len(texts) - failed, "", "completed")
        return outcomes

    def _failures(self, texts: Sequence[str], error: RequestError) -> list[Outcome]:
        self.traffic.move(len(texts), "", "failed")
        return [Outcome(text, error.request_id, error=str(error)) for text in texts]

    async def _sample(self) -> None:
        """Classify a text of our own."""
        try:
            request_id = await self._wire.post(str(uuid.uuid4()), encode_texts(SAMPLE_TEXTS[:1]))
            since = time.monotonic()
            while True:
                await asyncio.sleep(self._pace.back_off(since))
                answer = await self._wire.poll(request_id)
                if answer["status"] == "failed":
                    raise ServiceFailed("a sample text failed; the service's log has the reason")
                if answer["status"] == "completed":
                    return
        except _Trouble as trouble:
            raise CannotRun(str(trouble)) from trouble


class _Line:
    """Jobs on their way: started in order, bounded in number, given back in order.

    The bound is twice the window, for a job that is slow must not keep those behind it from being
    submitted while it is waited for.
    """

    def __init__(self, client: AsyncAPIClient, journal: Journal) -> None:
        self._client = client
        self._journal = journal
        self._room = asyncio.Semaphore(2 * client.policy.window)
        self._started: asyncio.Queue[tuple[Job, asyncio.Task[list[Outcome]]] | None]
        self._started = asyncio.Queue()
        self._running: set[asyncio.Task[Any]] = set()
        self._feeding: asyncio.Task[None] | None = None

    def feed(self, jobs: AsyncIterator[Job]) -> None:
        """Begin."""
        self._feeding = asyncio.create_task(self._feed(jobs))

    async def __aiter__(self) -> AsyncIterator[tuple[Job, list[Outcome]]]:
        """Jobs and their outcomes."""
        while (item := await self._started.get()) is not None:
            job, task = item
            yield job, await task
            self._room.release()
        if self._feeding is not None:
            await self._feeding

    async def close(self) -> None:
        """Cancel what still runs."""
        tasks = self._running | ({self._feeding} if self._feeding else set())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, jobs: AsyncIterator[Job]) -> None:
        stopping = asyncio.create_task(self._client._stopping.wait())
        try:
            while (job := await _first(self._next(jobs), stopping)) is not None:
                await self._journal.reserve(job.end)
                task = asyncio.create_task(self._client.classify(job, self._journal))
                self._running.add(task)
                task.add_done_callback(self._ended)
                self._started.put_nowait((job, task))
        finally:
            stopping.cancel()
            self._started.put_nowait(None)

    def _ended(self, task: asyncio.Task[list[Outcome]]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # of those after a stop nobody asks any more

    async def _next(self, jobs: AsyncIterator[Job]) -> Job | None:
        await self._room.acquire()
        return await anext(jobs, None)


async def _first(wanted: Awaitable[T | None], stopping: asyncio.Task[Any]) -> T | None:
    """What ``wanted`` returns, or None once ``stopping`` is done."""
    task = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
        return None if stopping.done() else task.result()
    finally:
        task.cancel()


async def _all(awaitables: Iterable[Awaitable[T]]) -> list[T]:
    """All results; if one raises, the others are cancelled before it is raised."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Batches(Generic[T]):
    """Cuts a stream into batches of ``size``, shorter ones where texts, or rows, are long."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._items: list[T] = []
        self._chars = 0

    def add(self, item: T, chars: int) -> tuple[T, ...]:
        """Add an item; returns a batch if it is full now."""
        self._items.append(item)
        self._chars += chars
        full = len(self._items) == self._size or self._chars >= BATCH_CHARS
        return self.rest() if full else ()

    def rest(self) -> tuple[T, ...]:
        """What is in no batch yet."""
        batch, self._items, self._chars = tuple(self._items), [], 0
        return batch


async def _jobs(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[Job]:
    first = 0
    batches: Batches[str] = Batches(size)
    async for text in _each(texts):
        if batch := batches.add(text, len(text)):
            yield Job(first, first + len(batch), batch)
            first += len(batch)
    if batch := batches.rest():
        yield Job(first, first + len(batch), batch)


async def _each(texts: Iterable[str] | AsyncIterable[str]) -> AsyncIterator[str]:
    if isinstance(texts, AsyncIterable):
        async for text in texts:
            yield text
    else:
        for text in texts:
            yield text


# --- the state file -------------------------------------------------------------------------------

STATE_MARK = 0x41535952
"""SQLite's application_id of a state file: "ASYR"."""

STATE_VERSION = 1
RESERVED_ROWS = 64
"""Batches whose submission is announced with one write."""

STATE_SCHEMA = """
CREATE TABLE run (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE requests (
    first INTEGER NOT NULL,
    count INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    id TEXT NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (first, count, attempt)
) WITHOUT ROWID;
"""
PUT = "INSERT OR REPLACE INTO run (name, value) VALUES (?, ?)"
PUT_REQUEST = (
    "INSERT OR REPLACE INTO requests (first, count, attempt, id, digest) VALUES (?,?,?,?,?)"
)
GET_REQUESTS = "SELECT first, count, attempt, id, digest FROM requests WHERE first >= ?"


@dataclass(frozen=True, slots=True)
class Tally:
    """What is written: kept in the state file, so that a summary is that of the whole run.

    Attributes:
        failures: the first ones, as row number from 1 and reason.
        seconds: spent in all sessions.
    """

    completed: int = 0
    failed: int = 0
    labels: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[tuple[int, str]] = ()
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Where a run goes on.

    Attributes:
        rows: that are in the output and on disk.
        size: of the output with them, in bytes.
        tail: the SHA-256 of the last bytes of the output, by which it is known again.
        digest: of these rows of the input, as SHA-256 in hexadecimal.
        done: whether these are all rows, and the output is complete.
    """

    rows: int = 0
    size: int = 0
    tail: str = ""
    digest: str = ""
    done: bool = False
    tally: Tally = field(default_factory=Tally)


class StateFile(Journal):
    """A run on disk: an SQLite file that one process uses at a time, durable with every commit.

    Args:
        options: what makes a run this run; a file with other options is refused.

    Raises:
        StateError: the file is another run's, in use, or no state file.
    """

    def __init__(self, path: Path, options: Mapping[str, object]) -> None:
        self._path = path
        self._waiting: list[tuple[str, tuple[object, ...], asyncio.Future[None]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._known: dict[Key, tuple[str, bytes]] = {}
        try:
            self._database = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=0.0
            )
        except sqlite3.Error as error:
            raise StateError(f"--state {path}: {error}") from error
        try:
            self._open(options)
        except sqlite3.OperationalError as error:
            self._database.close()
            busy = "another run uses it" if "locked" in str(error) else str(error)
            raise StateError(f"--state {path}: {busy}") from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise StateError(f"--state {path}: is no state file, or damaged: {error}") from error
        except StateError:
            self._database.close()
            raise

    def _open(self, options: Mapping[str, object]) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or the process ends
        mark, version = (
            execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
        )
        new = execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
        if not new and (mark, version) != (STATE_MARK, STATE_VERSION):
            raise StateError(f"--state {self._path}: is no state file of this version")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("BEGIN EXCLUSIVE")
        if new:
            for statement in STATE_SCHEMA.split(";\n"):
                execute(statement)
            execute(f"PRAGMA application_id = {STATE_MARK}")
            execute(f"PRAGMA user_version = {STATE_VERSION}")
            execute(PUT, ("run", str(uuid.uuid4())))
            execute(PUT, ("options", json.dumps(options)))
        execute("COMMIT")
        self._check_options(options)
        super().__init__(uuid.UUID(self._get("run")))
        self._reserved = self._sent_before = int(self._get("reserved") or 0)
        self.checkpoint = _read_checkpoint(self._get("checkpoint"))

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def load(self, first: int) -> None:
        """Read the ids of requests from row ``first`` on; the others are not asked for."""
        for row, count, attempt, request_id, digest in self._database.execute(
            GET_REQUESTS, (first,)
        ):
            self._known[row, count, attempt] = request_id, digest

    def known(self, key: Key, digest: bytes) -> str | None:
        """See :meth:`Journal.known`.

        Raises:
            StateError: it was submitted with other texts.
        """
        if key not in self._known:
            return None
        request_id, recorded = self._known.pop(key)
        if recorded != digest:
            raise StateError(
                f"--state {self._path}: row {key[0] + 1} of the input is not what was submitted; "
                "give the same input, or another state file"
            )
        return request_id

    def may_be_sent(self, key: Key) -> bool:
        """See :meth:`Journal.may_be_sent`."""
        return key[0] < self._sent_before

    async def reserve(self, end: int) -> None:
        """See :meth:`Journal.reserve`."""
        if end > self._reserved:
            self._reserved = end + (end - self._reserved) * RESERVED_ROWS
            await self._write(PUT, ("reserved", str(self._reserved)))

    async def submitted(self, key: Key, digest: bytes, request_id: str) -> None:
        """See :meth:`Journal.submitted`."""
        await self._write(PUT_REQUEST, (*key, request_id, digest))

    async def save(self, checkpoint: Checkpoint) -> None:
        """Record how far the output is; on disk on return."""
        self.checkpoint = checkpoint
        await self._write(PUT, ("checkpoint", json.dumps(asdict(checkpoint))))

    def _check_options(self, options: Mapping[str, object]) -> None:
        recorded = json.loads(self._get("options"))
        for name in sorted(recorded.keys() | options.keys()):
            before, now = recorded.get(name), options.get(name)
            if before != now:
                raise StateError(
                    f"--state {self._path}: the run was begun with {name} {before!r}, not {now!r};"
                    " give the same options, or another state file"
                )

    def _get(self, name: str) -> str:
        row = self._database.execute("SELECT value FROM run WHERE name = ?", (name,)).fetchone()
        return "" if row is None else str(row[0])

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """Commit a statement; those that come in meanwhile share the next commit."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((statement, values, written))
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())
        await asyncio.shield(written)

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                await asyncio.to_thread(self._commit, group)
            except sqlite3.Error as error:
                problem = StateError(f"--state {self._path}: cannot be written: {error}")
                for _, _, written in group:
                    written.set_exception(problem)
            else:
                for _, _, written in group:
                    written.set_result(None)
        self._writing = None

    def _commit(self, group: Sequence[tuple[str, tuple[object, ...], object]]) -> None:
        self._database.execute("BEGIN")
        try:
            for statement, values, _ in group:
                self._database.execute(statement, values)
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise


def _read_checkpoint(text: str) -> Checkpoint:
    if not text:
        return Checkpoint()
    fields = json.loads(text)
    tally = fields.pop("tally")
    tally["failures"] = [(row, reason) for row, reason in tally["failures"]]
    return Checkpoint(**fields, tally=Tally(**tally))


# --- the input ------------------------------------------------------------------------------------

GZIP_MAGIC = b"\x1f\x8b"
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}
DELIMITERS = {"csv": ",", "tsv": "\t"}
TEXT_NAMES = ("text", "input_text")
"""Columns and fields that are taken when none is named."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input.

    Attributes:
        text: to classify; None if the row has none.
        original: what the output repeats: a line, CSV fields, or a JSON object.
        problem: why there is no text.
    """

    text: str | None
    original: str | Sequence[str] | Mapping[str, object]
    problem: str | None = None

    def chars(self) -> int:
        """How much of it is held until it is written, its text included."""
        if isinstance(self.original, str):
            return len(self.original)
        fields = self.original.values() if isinstance(self.original, Mapping) else self.original
        return sum(map(len, map(str, fields)))

    def fingerprint(self) -> bytes:
        """All of the row."""
        value = self.original if isinstance(self.original, str) else json.dumps(self.original)
        return value.encode("utf-8", "surrogatepass") + b"\0"


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How to read rows.

    Attributes:
        format: text, csv, tsv or jsonl; "": by the file's name.
        column: a column's name, or its number from 1; "": ``text``, or the only one.
        field: of a JSON object; "": ``text`` or ``input_text``.
        header_row: whether the first row of a CSV names the columns.
        delimiter: of a CSV; "": by the format.
    """

    format: str = ""
    column: str = ""
    field: str = ""
    header_row: bool = True
    delimiter: str = ""
    encoding: str = "utf-8"


class Source:
    """Rows of one input, read as they are asked for.

    Attributes:
        columns: the names of a CSV's columns; None if it has none.
        format: text, csv, tsv or jsonl.

    Raises:
        InputError: it cannot be read, or has no such column.
    """

    def __init__(self, name: str, file: IO[bytes], options: InputOptions) -> None:
        self.name = name
        self.format = options.format or _format_of(name, options)
        self.columns: Sequence[str] | None = None
        self._file = file
        self._size = _size(file)
        self._count = 0
        self._position = 0
        with self._input_errors():
            self._lines = self._open(file, options.encoding)
            self._rows = self._reader(self._lines, options)

    def close(self) -> None:
        """Let go of the file, even if a thread still reads it."""
        self._file.close()

    @property
    def tabular(self) -> bool:
        """Whether rows are CSV fields."""
        return self.format in DELIMITERS

    @property
    def fraction(self) -> float | None:
        """How much of the input is read, from 0 to 1; None if nobody can know."""
        return min(1.0, self._position / self._size) if self._size else None

    def __iter__(self) -> Iterator[Row]:
        """The rows.

        Raises:
            InputError: what follows cannot be read.
        """
        with self._input_errors():
            for row in self._rows:
                self._count += 1
                if not self._count % 256 and self._size:
                    self._position = os.lseek(self._file.fileno(), 0, os.SEEK_CUR)
                yield row
        self._position = self._size or 0

    def _open(self, file: IO[bytes], encoding: str) -> io.TextIOWrapper:
        buffered = io.BufferedReader(file)  # type: ignore[type-var]
        binary: Any = buffered
        if buffered.peek(2)[:2] == GZIP_MAGIC:
            binary = gzip.GzipFile(fileobj=buffered)
        # Only line feeds end a line of text; in CSV, quotes decide.
        newline = "" if self.tabular else "\n"
        return io.TextIOWrapper(binary, encoding=_with_mark(encoding), newline=newline)

    def _reader(self, lines: io.TextIOWrapper, options: InputOptions) -> Iterator[Row]:
        if self.format == "text":
            return map(_text_row, lines)
        if self.format == "jsonl":
            return (_json_row(line, options.field) for line in lines)
        delimiter = options.delimiter or DELIMITERS[self.format]
        csv.field_size_limit(2**31 - 1)
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        if options.header_row:
            self.columns = next(table, [])
        return self._table_rows(table, options)

    def _table_rows(self, table: Iterator[list[str]], options: InputOptions) -> Iterator[Row]:
        if self.columns is not None:
            if not self.columns:
                return iter(())
            place = find_column(self.columns, options.column)
            return (_table_row(fields, place, len(self.columns or ())) for fields in table)
        if not options.column.isdigit() or options.column == "0":
            raise InputError("without a header row, --column must be a number from 1")
        place = int(options.column) - 1
        return (_table_row(fields, place, None) for fields in table)

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self.name}: {error}") from error
        except UnicodeDecodeError as error:
            where = f"{self.name}, after row {self._count}"
            raise InputError(f"{where}: is not {error.encoding}; see --encoding") from error
        except (OSError, EOFError, csv.Error, zlib.error) as error:
            where = f"{self.name}, after row {self._count}"
            raise InputError(f"{where}: {error}") from error


def open_source(name: str, options: InputOptions) -> Source:
    """The rows of a file, or of standard input for ``-``.

    Raises:
        InputError: it cannot be read.
    """
    try:
        # Not sys.stdin: a thread that waits in it would hold up the end of the program.
        file = open(0, "rb", 0, closefd=False) if name == "-" else open(name, "rb", 0)  # noqa: PTH123, SIM115
    except OSError as error:
        raise InputError(f"{name}: {error.strerror}") from error
    try:
        return Source("standard input" if name == "-" else name, file, options)
    except InputError:
        file.close()
        raise


def find_column(columns: Sequence[str], wanted: str) -> int:
    """The place of a column, by name or by number from 1.

    Raises:
        InputError: there is none.
    """
    for name in [wanted] if wanted else TEXT_NAMES:
        if name in columns:
            return list(columns).index(name)
    if wanted.isdigit() and 1 <= int(wanted) <= len(columns):
        return int(wanted) - 1
    if not wanted and len(columns) == 1:
        return 0
    asked = f"there is no column {wanted!r}" if wanted else "--column must say where the texts are"
    raise InputError(f"{asked}; there are: {', '.join(columns)}")


def _format_of(name: str, options: InputOptions) -> str:
    suffix = Path(name.removesuffix(".gz")).suffix.lower()
    if suffix in FORMATS:
        return FORMATS[suffix]
    if options.field:
        return "jsonl"
    return "csv" if options.column or options.delimiter else "text"


def _size(file: IO[bytes]) -> int | None:
    found = os.fstat(file.fileno())
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def _with_mark(encoding: str) -> str:
    """An encoding that skips a byte order mark, if it is UTF-8."""
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _text_row(line: str) -> Row:
    text = line.removesuffix("\n").removesuffix("\r")
    return Row(text, text)


def _json_row(line: str, wanted: str) -> Row:
    line = line.strip()
    try:
        value = json.loads(line)
    except ValueError as error:
        return Row(None, line, f"the line is not JSON: {error}")
    if isinstance(value, str) and not wanted:
        return Row(value, value)
    if not isinstance(value, dict):
        return Row(None, line, f"the line is no JSON object: {line[:80]}")
    for name in [wanted] if wanted else TEXT_NAMES:
        if isinstance(value.get(name), str):
            return Row(value[name], value)
    named = wanted or " or ".join(TEXT_NAMES)
    return Row(None, value, f"the object has no text in field {named}")


def _table_row(fields: list[str], place: int, columns: int | None) -> Row:
    if columns is not None and len(fields) != columns:
        padded = (fields + [""] * columns)[:columns]
        return Row(None, padded, f"the row has {len(fields)} fields, the header {columns}")
    if place >= len(fields):
        return Row(None, fields, f"the row has {len(fields)} fields, no column {place + 1}")
    return Row(fields[place], fields)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that make a job.

    Attributes:
        digest: of all rows up to its last, as SHA-256 in hexadecimal; "" if nobody needs it.
    """

    rows: tuple[Row, ...]
    digest: str


def read_jobs(rows: Iterable[Row], size: int, done: Checkpoint, *, digests: bool) -> Iterator[Job]:
    """Jobs of ``size`` rows, after those that are done.

    Raises:
        StateError: the rows that are done are not those of the input.
    """
    rows = iter(rows)
    digest = hashlib.sha256()
    first = 0
    for row in itertools.islice(rows, done.rows):
        digest.update(row.fingerprint())
        first += 1
    if done.rows and (first, digest.hexdigest()) != (done.rows, done.digest):
        raise StateError(
            f"the input is not that of the state file: its first {done.rows} rows are others; "
            "give the same input, or another state file"
        )
    for batch in _batches(rows, size):
        if digests:
            digest.update(b"".join(row.fingerprint() for row in batch))
        texts = tuple(row.text for row in batch if row.text is not None)
        payload = Batch(batch, digest.hexdigest() if digests else "")
        yield Job(first, first + len(batch), texts, payload)
        first += len(batch)


def _batches(rows: Iterator[Row], size: int) -> Iterator[tuple[Row, ...]]:
    batches: Batches[Row] = Batches(size)
    for row in rows:
        if batch := batches.add(row, row.chars()):
            yield batch
    if batch := batches.rest():
        yield batch


class _End(NamedTuple):
    error: Exception | None


async def in_thread(items: Iterable[T], ahead: int = 8) -> AsyncGenerator[T, None]:
    """``items``, read by a thread: a slow input must not hold up the requests.

    The thread is a daemon: it may wait for standard input when the program ends.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[T | _End] = asyncio.Queue()
    room = threading.Semaphore(ahead)
    closed = threading.Event()

    def run() -> None:
        error: Exception | None = None
        try:
            for item in items:
                room.acquire()
                if closed.is_set():
                    return
                loop.call_soon_threadsafe(queue.put_nowait, item)
        except Exception as caught:
            error = caught
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(queue.put_nowait, _End(error))

    threading.Thread(target=run, daemon=True, name="input").start()
    try:
        while not isinstance(item := await queue.get(), _End):
            room.release()
            yield item
        if item.error is not None:
            raise item.error
    finally:
        closed.set()
        room.release()


# --- the output -----------------------------------------------------------------------------------

ADDED = ("label", "score", "id", "error")


def added_names(taken: Iterable[str]) -> tuple[str, ...]:
    """The names of what is added to a row; one that the input has already gets a prefix."""
    taken = set(taken)
    return tuple(f"result_{name}" if name in taken else name for name in ADDED)


class Formatter(Protocol):
    """Rows as text."""

    def header(self) -> str:
        """What comes before the first row."""

    def row(self, row: Row, outcome: Outcome) -> str:
        """A row with what became of it."""


class JsonLines:
    """A JSON object per row: its fields, label, score, id and error, and the whole result."""

    def __init__(self, source: Source | None) -> None:
        self._columns = source.columns if source is not None else None

    def header(self) -> str:
        """None."""
        return ""

    def row(self, row: Row, outcome: Outcome) -> str:
        """One line; what is not known is left out."""
        fields = self._fields(row)
        values = (outcome.label, outcome.score, outcome.id, outcome.error)
        added = zip(added_names(fields), values, strict=True)
        fields |= {name: value for name, value in added if value is not None}
        if outcome.result is not None:
            name = "result" if "result" not in fields else "result_result"
            fields[name] = dict(outcome.result)
        # An argument that is no UTF-8 holds half characters: JSON can escape them, UTF-8 cannot.
        line = json.dumps(fields, ensure_ascii=False, separators=(", ", ": ")) + "\n"
        return line.encode(errors="backslashreplace").decode()

    def _fields(self, row: Row) -> dict[str, object]:
        if isinstance(row.original, str):
            return {"text": row.original}
        if isinstance(row.original, Mapping):
            return dict(row.original)
        names = self._columns or [f"column_{n + 1}" for n in range(len(row.original))]
        return dict(zip(names, row.original, strict=True))


class Csv:
    """The columns of the input and label, score, id and error."""

    def __init__(self, source: Source | None, delimiter: str = ",") -> None:
        self._tabular = source is not None and source.tabular
        self._columns: Sequence[str] | None = ("text",)
        if source is not None and source.tabular:
            self._columns = source.columns
        self._buffer = io.StringIO()
        # Before Python 3.13 a line break is quoted only if the terminator holds it.
        self._writer = csv.writer(self._buffer, delimiter=delimiter, lineterminator="\r\n")

    def header(self) -> str:
        """The names, if the input has any."""
        if self._columns is None:
            return ""
        return self._line([*self._columns, *added_names(self._columns)])

    def row(self, row: Row, outcome: Outcome) -> str:
        """One row."""
        original = row.original
        fields: Sequence[str] = (outcome.text,)
        if not isinstance(original, str | Mapping):
            fields = original
        return self._line([*fields, outcome.label, outcome.score, outcome.id, outcome.error])

    def _line(self, fields: Sequence[object]) -> str:
        self._writer.writerow(fields)
        line = self._buffer.getvalue().removesuffix("\r\n") + "\n"
        self._buffer.seek(0)
        self._buffer.truncate()
        return line.encode(errors="backslashreplace").decode()


class Output(Protocol):
    """Where rows go."""

    size: int
    """Bytes that are in it."""

    def write(self, text: str) -> None:
        """Append."""

    def flush(self) -> None:
        """Hand over what is buffered."""

    def sync(self) -> None:
        """All that was written is on disk on return."""

    def finish(self) -> None:
        """It is complete."""

    def close(self) -> None:
        """Let go of it."""


TAIL_BYTES = 4096


class FileOutput:
    """A file that has its name when it is complete, and is ``<name>.part`` before.

    An earlier file of that name is there until then, and no reader takes half a file for a whole.
    What is no regular file, such as a pipe or /dev/null, is written as it is.

    Args:
        begin: what an earlier session has written of it; nothing if it has no rows.

    Raises:
        CannotRun: it cannot be written.
    """

    def __init__(self, path: Path, begin: Checkpoint) -> None:
        self.path = path.resolve()  # a symbolic link stays one
        self.special = self.path.exists() and not self.path.is_file()
        self.part = self.path if self.special else self.path.with_name(self.path.name + ".part")
        self.size = begin.size
        self._begin = begin
        self._kept = written_file(path, begin) if begin.rows else None
        self._tail = b""
        self._file: IO[bytes] | None = None
        if not begin.done:
            self._open()

    def _open(self) -> IO[bytes]:
        try:
            if self._kept == self.path:
                self.path.replace(self.part)  # complete, but the input has grown
            file = self._file = self.part.open("r+b" if self.size else "wb")
            if self.size:
                file.truncate(self.size)
                self._tail = _tail(file, self.size)
        except OSError as error:
            raise CannotRun(f"--output {self.path}: {error.strerror}") from error
        return file

    @property
    def tail(self) -> str:
        """See :class:`Checkpoint`."""
        return self._begin.tail if self._file is None else hashlib.sha256(self._tail).hexdigest()

    def write(self, text: str) -> None:
        """See :class:`Output`."""
        data = text.encode()
        (self._file or self._open()).write(data)
        self.size += len(data)
        self._tail = (self._tail + data)[-TAIL_BYTES:]

    def flush(self) -> None:
        """See :class:`Output`: a file can wait."""

    def sync(self) -> None:
        """See :class:`Output`."""
        if self._file is not None:
            self._file.flush()
            if not self.special:
                os.fsync(self._file.fileno())

    def finish(self) -> None:
        """See :class:`Output`."""
        self.sync()
        written = self.part if self._file is not None else self._kept
        if not self.special and written == self.part:
            self.part.replace(self.path)

    def close(self) -> None:
        """See :class:`Output`."""
        if self._file is not None:
            self._file.close()


def written_file(path: Path, checkpoint: Checkpoint) -> Path | None:
    """The file that holds what ``checkpoint`` vouches for; None if it is gone, or is another."""
    path = path.resolve()
    for each in (path.with_name(path.name + ".part"), path):
        if each.is_file() and each.stat().st_size >= checkpoint.size:
            with each.open("rb") as file:
                tail = _tail(file, checkpoint.size)
            if hashlib.sha256(tail).hexdigest() == checkpoint.tail:
                return each
    return None


def _tail(file: IO[bytes], size: int) -> bytes:
    """The last bytes before ``size``; the file is read up to there."""
    begin = max(0, size - TAIL_BYTES)
    file.seek(begin)
    return file.read(size - begin)


class StandardOutput:
    """Standard output; a result does not wait for the next one."""

    def __init__(self) -> None:
        self.size = 0
        self._file = open(1, "wb", closefd=False)  # noqa: SIM115

    def write(self, text: str) -> None:
        """See :class:`Output`."""
        self._file.write(text.encode())

    def flush(self) -> None:
        """See :class:`Output`."""
        self._file.flush()

    def sync(self) -> None:
        """See :class:`Output`."""
        self.flush()

    def finish(self) -> None:
        """See :class:`Output`."""
        self.flush()

    def close(self) -> None:
        """See :class:`Output`; whoever read it may be gone."""
        with contextlib.suppress(OSError):
            self._file.close()


class ScreenOutput:
    """Standard output that is a terminal, above the live display."""

    def __init__(self, console: Console) -> None:
        self.size = 0
        self._console = console

    def write(self, text: str) -> None:
        """See :class:`Output`."""
        self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)

    def flush(self) -> None:
        """See :class:`Output`: a console does not buffer."""

    def sync(self) -> None:
        """See :class:`Output`."""

    def finish(self) -> None:
        """See :class:`Output`."""

    def close(self) -> None:
        """See :class:`Output`."""


# --- what people see ------------------------------------------------------------------------------

LIVE_PERIOD, PLAIN_PERIOD = 0.25, 5.0
"""Seconds between two looks at the progress, on a terminal and elsewhere."""

RATE_SECONDS = 20.0
"""Over which the rate is taken."""

BAR_CELLS = 30
FIRST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run is, in texts.

    Attributes:
        rate: texts that finish in a second, lately.
        fraction: of all texts that are finished, from 0 to 1; None if nobody can know.
        eta: seconds until the end; None if nobody can know.
    """

    in_queue: int
    in_progress: int
    completed: int
    failed: int
    rate: float = 0.0
    fraction: float | None = None
    eta: float | None = None

    @property
    def submitted(self) -> int:
        """All of them."""
        return self.in_queue + self.in_progress + self.completed + self.failed

    def cells(self) -> dict[str, str]:
        """What is shown, by name."""
        return {
            "submitted": f"{self.submitted:,}",
            "in queue": f"{self.in_queue:,}",
            "in progress": f"{self.in_progress:,}",
            "completed": f"{self.completed:,}",
            "failed": f"{self.failed:,}",
            "texts/s": f"{self.rate:,.1f}",
            "ETA": "-" if self.eta is None else duration(self.eta),
        }

    def line(self) -> str:
        """All of it on one plain line."""
        cells = self.cells()
        counts = [f"{cells[name]} {name}" for name in list(cells)[:-1]]
        share = "" if self.fraction is None else f", {self.fraction:.0%}, ETA {cells['ETA']}"
        return ", ".join(counts) + share


def duration(seconds: float) -> str:
    """``0:04``, ``12:30`` or ``3:12:30``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Display(Protocol):
    """Shows a run to people, on standard error."""

    period: float
    """Seconds between two calls of :meth:`show`."""

    def show(self, progress: Progress) -> None:
        """How far it is."""

    def say(self, text: str) -> None:
        """A line that stays."""

    def close(self) -> None:
        """The last progress was shown."""


class PlainDisplay:
    """Lines, for files and logs."""

    period = PLAIN_PERIOD

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def show(self, progress: Progress) -> None:
        """See :class:`Display`."""
        if not self._quiet:
            self.say(progress.line())

    def say(self, text: str) -> None:
        """See :class:`Display`."""
        say(text)

    def close(self) -> None:
        """See :class:`Display`."""


class LiveDisplay:
    """Counts and a bar that stay at the bottom of a terminal."""

    period = LIVE_PERIOD

    def __init__(self, console: Console) -> None:
        live = importlib.import_module("rich.live").Live
        self._console = console
        self._live: Live = live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, progress: Progress) -> None:
        """See :class:`Display`."""
        self._live.update(render(progress, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        """See :class:`Display`."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """See :class:`Display`."""
        self._live.stop()


def render(progress: Progress, width: int) -> RenderableType:
    """The counts as a table, the bar below it; 80 columns are enough."""
    from rich.console import Group  # here: a script without rich shows plain lines
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    cells = progress.cells()
    counts = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for name in cells:
        alarming = name == "failed" and progress.failed
        counts.add_column(name, justify="right", style="red" if alarming else "", min_width=7)
    counts.add_row(*cells.values())
    # Not to the edge: the terminal writes ^C behind the bar, and must not begin a line for it.
    bar = Table.grid(padding=(0, 1))
    bar.width = max(20, min(width, 100) - 4)
    bar.add_column(ratio=1)
    bar.add_column(justify="right", width=5)
    if progress.fraction is None:
        bar.add_row(ProgressBar(total=None), "")
    else:
        share = ProgressBar(total=1.0, completed=progress.fraction)
        bar.add_row(share, f"{int(progress.fraction * 100)} %")
    return Group(counts, bar)


def say(text: str) -> None:
    """A line on standard error, whether or not anybody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class _Once(logging.Handler):
    """Shows the first message of each kind: the summary counts them all."""

    def __init__(self, display: Display) -> None:
        super().__init__()
        self._display = display
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Show it, if it is the first."""
        if record.msg not in self._seen:
            self._seen.add(record.msg)
            self._display.say(record.getMessage())


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, by nearest rank; empty if there is no value."""
    ordered = sorted(values)
    if not ordered:
        return {}
    last = len(ordered) - 1
    return {f"p{p}": ordered[min(last, len(ordered) * p // 100)] for p in (50, 95, 99)}


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run came to.

    Attributes:
        tally: of all sessions.
        rate: texts per second of this session.
        seconds, cpu_seconds: of this session.
        output, state: files that were named.
    """

    tally: Tally
    traffic: Traffic
    seconds: float
    cpu_seconds: float
    rate: float
    exit_code: int
    output: str | None = None
    state: str | None = None

    def record(self) -> dict[str, object]:
        """For programs."""
        latencies = percentiles(self.traffic.latencies)
        counts = ("requests", "posts", "polls", "retries", "splits", "resubmitted")
        return {
            "texts": self.tally.completed + self.tally.failed,
            "completed": self.tally.completed,
            "failed": self.tally.failed,
            "labels": dict(self.tally.labels),
            "failures": [{"row": row, "error": why} for row, why in self.tally.failures],
            "seconds": round(self.seconds, 3),
            "texts_per_second": round(self.rate, 1),
            "cpu_seconds": round(self.cpu_seconds, 3),
            "latency_seconds": {name: round(value, 4) for name, value in latencies.items()},
            **{name: getattr(self.traffic, name) for name in counts},
            "output": self.output,
            "state": self.state,
            "exit_code": self.exit_code,
        }

    def lines(self, bar: str = "█") -> list[str]:
        """For people."""
        tally = self.tally
        lines = [
            f"{tally.completed + tally.failed:,} texts: {tally.completed:,} completed,"
            f" {tally.failed:,} failed; {self.rate:,.1f} texts/s in {duration(self.seconds)}"
        ]
        if latencies := percentiles(self.traffic.latencies):
            words = ", ".join(f"{name} {value:.2f} s" for name, value in latencies.items())
            lines.append(f"from submission to result: {words}")
        lines += label_bars(tally.labels, bar)
        lines += self._repeated()
        if tally.failures:
            lines.append("failed first:")
            lines += [f"  row {row}: {reason}" for row, reason in tally.failures]
        return lines

    def _repeated(self) -> list[str]:
        traffic = self.traffic
        said = [
            (traffic.retries, "exchanges that were tried again"),
            (traffic.resubmitted, "requests that failed or were forgotten, and submitted again"),
            (traffic.splits, "requests that were refused whole, and sent in parts"),
        ]
        return [f"{words}: {count:,}" for count, words in said if count]


def label_bars(labels: Mapping[str, int], bar: str) -> list[str]:
    """One line per label, the most frequent one with the longest bar."""
    total, most = sum(labels.values()), max(labels.values(), default=0)
    widest = max((len(label) for label in labels), default=0)
    digits = len(f"{most:,}")
    return [
        f"  {label:{widest}}  {bar * max(1, round(count / most * BAR_CELLS)):{BAR_CELLS}}"
        f"  {count:{digits},}  {count / total:6.1%}"
        for label, count in sorted(labels.items())
    ]


def plot(path: Path, latencies: Sequence[float], scores: Mapping[str, Sequence[float]]) -> None:
    """Histograms of the scores by label, and of the seconds from submission to result.

    Raises:
        CannotRun: the file cannot be written.
    """
    figures = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, values in sorted(scores.items()):
        left.hist(values, bins=40, range=(0, 1), alpha=0.6, label=label)
    left.set(xlabel="score", ylabel="texts")
    if scores:
        left.legend()
    right.hist(latencies, bins=40)
    right.set(xlabel="seconds from submission to result", ylabel="requests")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise CannotRun(f"--plot {path}: {error}") from error


# --- a run of the command line --------------------------------------------------------------------

SAVE_SECONDS = 1.0
"""Between two checkpoints: what is written after the last is asked for again, not submitted."""


class _Rate:
    """How much a count grows in a second, lately."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def __call__(self, count: int) -> float:
        now = time.monotonic()
        self._samples.append((now, count))
        while len(self._samples) > 2 and self._samples[1][0] < now - RATE_SECONDS:
            self._samples.popleft()
        since, before = self._samples[0]
        return (count - before) / (now - since) if now > since else 0.0


class Rows(Protocol):
    """An input, as far as a run needs to know it."""

    @property
    def fraction(self) -> float | None:
        """How much of it is read, from 0 to 1."""

    def __iter__(self) -> Iterator[Row]:
        """Its rows."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """Texts of the command line."""

    texts: Sequence[str]
    fraction: float | None = 1.0

    def __iter__(self) -> Iterator[Row]:
        """A row per text."""
        return (Row(text, text) for text in self.texts)


class Run:
    """Takes rows from an input through a client to an output.

    Args:
        begin: where an earlier session has ended.
        state: None if the run is not to be resumed.
    """

    def __init__(
        self,
        client: AsyncAPIClient,
        rows: Rows,
        formatter: Formatter,
        output: Output,
        *,
        begin: Checkpoint,
        state: StateFile | None,
        keep_scores: bool = False,
    ) -> None:
        self._client = client
        self._rows = rows
        self._formatter = formatter
        self._output = output
        self._state = state
        self._begin = begin
        self._checkpoint = begin
        self._labels = Counter(begin.tally.labels)
        self._failures = list(begin.tally.failures)
        self._counts = Counter(completed=begin.tally.completed, failed=begin.tally.failed)
        self._read = begin.rows
        self._rate = _Rate()
        self._started = self._saved = time.monotonic()
        self.scores: dict[str, array[float]] | None = {} if keep_scores else None
        self.complete = False

    @property
    def resumable(self) -> bool:
        """Whether the output can go on where it ended."""
        return self._state is not None and isinstance(self._output, FileOutput)

    async def work(self) -> None:
        """Do it; returns when every row is written, or when the client was stopped.

        Raises:
            CannotRun: it cannot go on.
            BrokenPipeError: nobody reads the output any more.
        """
        if not self._begin.rows:
            self._output.write(self._formatter.header())
        jobs = read_jobs(
            self._counted(), self._client.policy.batch_size, self._begin, digests=self.resumable
        )
        journal = self._state or Journal()
        try:
            async with (
                contextlib.aclosing(in_thread(jobs)) as reading,
                contextlib.aclosing(self._client.run(reading, journal)) as finished,
            ):
                async for job, outcomes in finished:
                    self._write(job, outcomes)
                    await self._save_now_and_then()
        finally:
            await asyncio.shield(self._save())

    async def finish(self) -> None:
        """Every row is written: the output is complete."""
        await self._save(done=True)
        self._output.finish()
        self.complete = True

    def progress(self) -> Progress:
        """How far it is."""
        traffic, begin = self._client.traffic, self._begin
        finished = begin.rows + traffic.finished
        rate = self._rate(finished)
        fraction = eta = None
        if self._rows.fraction:
            total = max(self._read / self._rows.fraction, 1.0)
            fraction = min(1.0, finished / total)
            eta = (total - finished) / rate if rate else None
        return Progress(
            traffic.in_queue,
            traffic.in_progress,
            begin.tally.completed + traffic.completed,
            begin.tally.failed + traffic.failed,
            rate,
            fraction,
            eta,
        )

    def tally(self) -> Tally:
        """What is written."""
        seconds = self._begin.tally.seconds + time.monotonic() - self._started
        counts = self._counts
        return Tally(
            counts["completed"], counts["failed"], dict(self._labels), self._failures, seconds
        )

    def session_rate(self) -> float:
        """Texts per second that this session has written."""
        written = self._counts.total() - self._begin.tally.completed - self._begin.tally.failed
        return written / max(time.monotonic() - self._started, 1e-9)

    def _counted(self) -> Iterator[Row]:
        for self._read, row in enumerate(self._rows, start=1):  # noqa: B020
            yield row

    def _write(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        batch: Batch = job.payload
        answers = iter(outcomes)
        lines = []
        for number, row in enumerate(batch.rows, start=job.first + 1):
            outcome = Outcome("", error=row.problem) if row.text is None else next(answers)
            lines.append(self._formatter.row(row, outcome))
            self._client.traffic.failed += row.text is None  # the client has not seen it
            self._count(number, outcome)
        self._output.write("".join(lines))
        self._output.flush()
        self._checkpoint = replace(
            self._checkpoint, rows=job.end, size=self._output.size, digest=batch.digest
        )

    def _count(self, number: int, outcome: Outcome) -> None:
        if outcome.error is not None:
            self._counts["failed"] += 1
            if len(self._failures) < FIRST_FAILURES:
                self._failures.append((number, outcome.error))
            return
        self._counts["completed"] += 1
        self._labels[outcome.label or "no label"] += 1
        if self.scores is not None and outcome.score is not None:
            self.scores.setdefault(str(outcome.label), array("d")).append(outcome.score)

    async def _save_now_and_then(self) -> None:
        if time.monotonic() - self._saved > SAVE_SECONDS:
            await self._save()

    async def _save(self, *, done: bool = False) -> None:
        if self._state is None or not isinstance(self._output, FileOutput):
            return
        if self._checkpoint.rows or done:
            # The rows first: a checkpoint must not speak of what the disk has not got.
            await asyncio.to_thread(self._output.sync)
            written = replace(self._checkpoint, tail=self._output.tail, tally=self.tally())
            await self._state.save(replace(written, done=done))
        self._saved = time.monotonic()


class Stop:
    """Why and how a run ends early.

    The first Ctrl-C lets what is submitted finish, the second does not; nor does a deadline.
    """

    def __init__(self, client: AsyncAPIClient, work: asyncio.Task[None], display: Display) -> None:
        self._client = client
        self._work = work
        self._display = display
        self.interrupts = 0
        self.deadline_passed = False

    def interrupt(self) -> None:
        """Ctrl-C, or a request to terminate."""
        self.interrupts += 1
        self._client.stop()
        traffic = self._client.traffic
        waiting = traffic.in_queue + traffic.in_progress
        if self.interrupts > 1 or not waiting + traffic.finished:
            self._work.cancel()
            return
        self._display.say(
            f"stopping: waiting for the {waiting:,} texts that are submitted;"
            " Ctrl-C again stops at once"
        )

    def deadline(self) -> None:
        """The time is over."""
        self.deadline_passed = True
        self._client.stop()
        self._work.cancel()


@contextlib.contextmanager
def _signals(handler: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, handler)
        except NotImplementedError:  # Windows

            def relay(_number: int, _frame: FrameType | None) -> None:
                loop.call_soon_threadsafe(handler)

            signal.signal(number, relay)
    yield


async def _show(display: Display, run: Run) -> None:
    while True:
        await asyncio.sleep(display.period)
        display.show(run.progress())


@dataclass(frozen=True, slots=True)
class Options:
    """A command line, understood.

    Attributes:
        texts: to classify; empty if there is a file.
        file: to read; "-" is standard input.
        output: to write; None is standard output.
        output_format: jsonl or csv; "": by the name of the output.
        deadline, wait_ready: in seconds.
    """

    texts: Sequence[str]
    file: str | None
    input: InputOptions
    output: Path | None
    output_format: str
    endpoint: str
    headers: Sequence[tuple[str, str]]
    verify: bool
    policy: Policy
    deadline: float | None
    wait_ready: float | None
    state: Path | None
    quiet: bool
    json: bool
    plot: Path | None

    def identity(self) -> dict[str, object]:
        """What must be the same when a run goes on."""
        file = self.file if self.file in {None, "-"} else str(Path(str(self.file)).resolve())
        return {
            "endpoint": self.endpoint,
            "texts": list(self.texts),
            "file": file,
            **asdict(self.input),
            "output": None if self.output is None else str(self.output.resolve()),
            "output_format": self.output_format,
            "batch_size": self.policy.batch_size,
        }


async def execute(options: Options, *, transport: httpx.AsyncBaseTransport | None = None) -> int:
    """Run a command line; returns the exit code.

    Raises:
        CannotRun: nothing could be begun.
    """
    rows: Arguments | Source = Arguments(options.texts)
    with contextlib.ExitStack() as stack:
        if options.file is not None:
            rows = open_source(options.file, options.input)
            stack.callback(rows.close)
        state = begin = None
        if options.state is not None:
            state = StateFile(options.state, options.identity())
            stack.callback(state.close)
            begin = _begin(options, state)
            state.load(begin.rows)
        begin = begin or Checkpoint()
        console = _console(options)
        output = _output(options, begin, console)
        stack.callback(output.close)
        display: Display = PlainDisplay(quiet=options.quiet)
        if console is not None:
            display = LiveDisplay(console)
        stack.callback(display.close)
        client = AsyncAPIClient(
            options.endpoint,
            options.policy,
            headers=options.headers,
            transport=transport,
            verify=options.verify,
        )
        run = Run(
            client,
            rows,
            _formatter(options, rows),
            output,
            begin=begin,
            state=state,
            keep_scores=options.plot is not None,
        )
        return await _execute(options, client, run, display)


async def _execute(options: Options, client: AsyncAPIClient, run: Run, display: Display) -> int:
    started, cpu = time.monotonic(), time.process_time()
    notes = _Once(display)
    logger.addHandler(notes)
    showing = asyncio.create_task(_show(display, run))
    try:
        async with client:
            code, problem = await _work(options, client, run, display)
    finally:
        showing.cancel()
        logger.removeHandler(notes)
        display.close()
    summary = Summary(
        run.tally(),
        client.traffic,
        time.monotonic() - started,
        time.process_time() - cpu,
        run.session_rate(),
        code,
        None if options.output is None else str(options.output),
        None if options.state is None else str(options.state),
    )
    _report(options, run, summary, problem)
    return code


async def _work(
    options: Options, client: AsyncAPIClient, run: Run, display: Display
) -> tuple[int, str]:
    """Do the work; returns the exit code, and what is in the way if anything is."""
    work = asyncio.create_task(_ready_then_work(options, client, run))
    stop = Stop(client, work, display)
    if options.deadline is not None:
        asyncio.get_running_loop().call_later(options.deadline, stop.deadline)
    with _signals(stop.interrupt):
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await work
            if stop.interrupts:
                return EXIT_INTERRUPTED, "interrupted"
            if stop.deadline_passed:
                return EXIT_FAILED, f"stopped by --deadline {options.deadline:g}"
            await run.finish()
        except CannotRun as error:
            return EXIT_CANNOT_RUN, str(error)
        except BrokenPipeError:
            _drop_output()
            return EXIT_FAILED, ""
        except OSError as error:
            return EXIT_CANNOT_RUN, f"the output cannot be written: {error}"
    return (EXIT_FAILED if run.tally().failed else EXIT_OK), ""


async def _ready_then_work(options: Options, client: AsyncAPIClient, run: Run) -> None:
    if options.wait_ready is not None:
        await client.wait_ready(options.wait_ready)
    await run.work()


def _report(options: Options, run: Run, summary: Summary, problem: str) -> None:
    written = summary.tally.completed + summary.tally.failed
    if options.json:
        record = json.dumps(summary.record() | {"complete": run.complete}, indent=2)
        if options.output is None:
            say(record)
        else:
            with contextlib.suppress(BrokenPipeError):
                print(record, flush=True)
    elif not options.quiet and (not problem or written):
        encoding = (sys.stderr.encoding or "").lower()
        for line in summary.lines("█" if encoding.startswith("utf") else "#"):
            say(line)
    if problem:
        say(f"async_requests: {problem}")
        if written or summary.traffic.posts > 1:
            say(_how_to_go_on(options, written))
    if options.plot is not None and run.scores is not None:
        plot(options.plot, summary.traffic.latencies, run.scores)


def _how_to_go_on(options: Options, written: int) -> str:
    if options.state is not None:
        return f"go on with: {shlex.join(['python', *sys.argv])}"
    where = f"in {options.output}.part" if options.output is not None else "written"
    return f"{written:,} rows are {where}; with --state FILE the same command could go on"


def _begin(options: Options, state: StateFile) -> Checkpoint:
    """Where to go on: where the output ends, or at the first row if it has gone."""
    done = state.checkpoint
    if options.output is None or not done.rows:
        return Checkpoint()
    if written_file(options.output, done) is None:
        say(f"{options.output} is gone or changed: written again from the ids in {options.state}")
        return Checkpoint()
    return done


def _console(options: Options) -> Console | None:
    """Where the live display is drawn; None if it cannot be, or nobody would see it."""
    if options.quiet or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return None
    consoles = importlib.import_module("rich.console")
    shared = options.output is None and sys.stdout.isatty()
    console: Console = consoles.Console(file=sys.stdout if shared else sys.stderr)
    return None if console.is_dumb_terminal else console


def _output(options: Options, begin: Checkpoint, console: Console | None) -> Output:
    if options.output is not None:
        return FileOutput(options.output, begin)
    if console is not None and sys.stdout.isatty():
        return ScreenOutput(console)
    return StandardOutput()


def _formatter(options: Options, rows: Arguments | Source) -> Formatter:
    source = rows if isinstance(rows, Source) else None
    if options.output_format == "jsonl":
        return JsonLines(source)
    return Csv(source, "\t" if options.output_format == "tsv" else ",")


def _drop_output() -> None:
    """Nobody reads standard output: what Python flushes at its end must go somewhere."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


# --- the command line -----------------------------------------------------------------------------

EPILOG = """\
examples:
  python async_requests.py
      nine sample texts
  python async_requests.py "i like you" "i hate you"
  python async_requests.py --file reviews.csv --column text --output results.csv
  cat reviews.txt | python async_requests.py - > results.jsonl
  zcat reviews.csv.gz | python async_requests.py - --column review > results.jsonl
  python async_requests.py --file reviews.jsonl --field body --output out.jsonl --state run.state
      goes on where it stopped when the same command is given again
  python async_requests.py --endpoint https://host/sentiment --header 'Authorization: Bearer ...' \\
      --file reviews.txt --wait-ready 600 --json

exit code: 0 all completed, 1 some failed or the run was cut short, 2 could not run, 130 interrupted
"""


def main(
    argv: Sequence[str] | None = None, *, transport: httpx.AsyncBaseTransport | None = None
) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        options = _options(arguments)
    except CannotRun as error:
        parser.error(str(error))
    if not arguments.texts and options.file is None:
        _announce_samples(options)
    try:
        return asyncio.run(execute(options, transport=transport))
    except CannotRun as error:
        say(f"async_requests: {error}")
        return EXIT_CANNOT_RUN
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _announce_samples(options: Options) -> None:
    if not options.quiet:
        say(f"no texts are given: sending {len(SAMPLE_TEXTS)} samples to {options.endpoint}")
    with contextlib.suppress(OSError, ValueError):
        if stat.S_ISFIFO(os.fstat(0).st_mode):
            say("standard input is read if - is given")


def _options(arguments: argparse.Namespace) -> Options:
    texts, file = list(arguments.texts), arguments.file
    if texts == ["-"]:
        texts, file = [], "-"
    if texts and arguments.file is not None:
        raise CannotRun("give texts or --file, not both")
    if file is None and not texts:
        texts = list(SAMPLE_TEXTS)
    parse_endpoint(arguments.endpoint)
    if arguments.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise CannotRun("--plot needs matplotlib: pip install matplotlib")
    # A text of the command line has an id of its own; in a file, many share a request.
    batch_size = arguments.batch_size or (1 if file is None else Policy().batch_size)
    return Options(
        texts=texts,
        file=file,
        input=InputOptions(
            format=arguments.format or "",
            column=arguments.column,
            field=arguments.field,
            header_row=not arguments.no_header_row,
            delimiter=arguments.delimiter or "",
            encoding=arguments.encoding,
        ),
        output=arguments.output,
        output_format=_output_format(arguments),
        endpoint=arguments.endpoint,
        headers=arguments.header,
        verify=not arguments.insecure,
        policy=Policy(
            batch_size=batch_size,
            window=arguments.window,
            concurrency=arguments.concurrency,
            timeout=arguments.timeout,
            retry_for=arguments.retry_for,
            retry_failed=arguments.retry_failed,
        ),
        deadline=arguments.deadline,
        wait_ready=arguments.wait_ready,
        state=arguments.state,
        quiet=arguments.quiet,
        json=arguments.json,
        plot=arguments.plot,
    )


def _output_format(arguments: argparse.Namespace) -> str:
    if arguments.output_format:
        return str(arguments.output_format)
    if arguments.output is None:
        return "jsonl"
    if arguments.output.suffix == ".gz":
        raise CannotRun("--output is not compressed: leave it out and pipe into gzip")
    found = FORMATS.get(arguments.output.suffix.lower(), "jsonl")
    return "jsonl" if found == "text" else found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="async_requests.py",
        usage="%(prog)s [OPTION ...] [TEXT ... | - | --file FILE]",
        description="Classify texts through a sentiment AsyncAPI.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    _add_input(parser.add_argument_group("input"))
    _add_output(parser.add_argument_group("output"))
    _add_service(parser.add_argument_group("service"))
    return parser


def _add_input(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("texts", nargs="*", metavar="TEXT", help="to classify; - reads standard input")
    add("--file", help="to read, gzip or not; - is standard input")
    add("--format", choices=("text", "csv", "tsv", "jsonl"), help="of the input (by its name)")
    add("--column", default="", metavar="NAME",
        help="of a CSV, where the texts are; a name or a number from 1")  # fmt: skip
    add("--field", default="", metavar="NAME", help="of JSON Lines, where the texts are")
    add("--no-header-row", action="store_true", help="the first row of the CSV is data")
    add("--delimiter", type=_character, help="of the CSV")
    add("--encoding", default="utf-8", type=_encoding, help="of the input (%(default)s)")


def _add_output(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--output", type=Path, metavar="FILE",
        help="to write; FILE.part until it is complete (standard output)")  # fmt: skip
    add("--output-format", choices=("jsonl", "csv", "tsv"), help="(by the name of the output)")
    add("--state", type=Path, metavar="FILE", help="keeps the ids, so that the run can go on")
    add("--quiet", action="store_true", help="no progress and no summary")
    add("--json", action="store_true",
        help="the summary as JSON, on standard output if that is free")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="histograms as an image; needs matplotlib")


def _add_service(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    policy = Policy()
    endpoint = os.environ.get("SENTIMENT_ENDPOINT") or ENDPOINT
    add("--endpoint", default=endpoint, metavar="URL",
        help="of the API; SENTIMENT_ENDPOINT in the environment (%(default)s)")  # fmt: skip
    add("--header", action="append", default=[], type=_header, metavar="'NAME: VALUE'",
        help="for every request; can be given again")  # fmt: skip
    add("--insecure", action="store_true", help="do not check the certificate of an https endpoint")
    add("--batch-size", type=_positive, metavar="N",
        help=f"texts in a request (of a file {policy.batch_size}, of arguments 1)")  # fmt: skip
    add("--window", type=_positive, default=policy.window, metavar="N",
        help="requests that are submitted and not finished, at most (%(default)s)")  # fmt: skip
    add("--concurrency", type=_positive, default=policy.concurrency, metavar="N",
        help="connections at once (%(default)s)")  # fmt: skip
    add("--timeout", type=_seconds, default=policy.timeout, metavar="SECONDS",
        help="from the submission of a request to its result (%(default)g)")  # fmt: skip
    add("--deadline", type=_seconds, metavar="SECONDS", help="for the whole run")
    add("--wait-ready", type=_seconds, metavar="SECONDS",
        help="first wait until a sample text is answered")  # fmt: skip
    add("--retry-for", type=_seconds, default=policy.retry_for, metavar="SECONDS",
        help="without a good answer, until the gateway counts as gone (%(default)g)")  # fmt: skip
    add("--retry-failed", type=_not_negative, default=policy.retry_failed, metavar="N",
        help="times that a request is submitted again after it failed (%(default)s)")  # fmt: skip


def _positive(text: str) -> int:
    return _whole(text, 1)


def _not_negative(text: str) -> int:
    return _whole(text, 0)


def _whole(text: str, least: int) -> int:
    value = int(text) if text.isascii() and text.isdigit() else -1
    if value < least:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a whole number, at least {least}")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of seconds above 0")
    return value


def _character(text: str) -> str:
    text = {"\\t": "\t", "tab": "\t"}.get(text, text)
    if len(text) != 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be one character")
    return text


def _encoding(text: str) -> str:
    try:
        return codecs.lookup(text).name
    except LookupError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: is no encoding") from error


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    name = name.strip()
    if not separator or not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name):
        raise argparse.ArgumentTypeError(f"{text!r}: must be 'NAME: VALUE'")
    if name.lower() in {"x-request-id", "content-length", "transfer-encoding", "host"}:
        raise argparse.ArgumentTypeError(f"{name} is set here")
    return name, value.strip()


if __name__ == "__main__":
    sys.exit(main())
