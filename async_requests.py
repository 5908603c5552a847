# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx", "rich"]
# ///
r"""Classifies texts through a sentiment AsyncAPI: submit, poll, results in the order of the input.

Examples:
  python async_requests.py
      nine sample texts
  python async_requests.py "i like you" "i hate you"
  python async_requests.py --file reviews.csv --column text --output results.csv
  cat reviews.txt | python async_requests.py - > results.jsonl
  zcat reviews.csv.gz | python async_requests.py - --column review > results.jsonl
  python async_requests.py --file reviews.jsonl --field body --output out.jsonl --state run.state
      goes on where it stopped when the same command is given again: after Ctrl-C, a kill or a
      reboot nothing is submitted twice
  python async_requests.py --endpoint https://host/sentiment --header 'Authorization: Bearer ...' \
      --file reviews.txt --wait-ready 600 --json

exit code: 0 all completed, 1 some failed or the run was cut short, 2 could not run, 130 interrupted

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
import functools
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
from collections import deque
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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

if __name__ == "__main__":
    lacking = [name for name in ("httpx", "rich") if importlib.util.find_spec(name) is None]
    if sys.version_info < (3, 11) or lacking:
        # `make run` has installed both into .venv: `python async_requests.py` finds them there.
        venv = (Path(__file__).parent / ".venv").resolve()
        if (venv / "bin/python").exists() and Path(sys.prefix).resolve() != venv:
            os.execv(venv / "bin/python", [str(venv / "bin/python"), *sys.argv])  # noqa: S606
        if sys.version_info < (3, 11) or "httpx" in lacking:
            print("needs Python 3.11 or newer and httpx: pip install httpx rich", file=sys.stderr)
            sys.exit(2)

    if importlib.util.find_spec("sniffio") is None:
        # httpcore tries to import it with every request; to search for it is a third of the cost.
        sys.modules["sniffio"] = None  # type: ignore[assignment]

import httpx  # not before its absence was dealt with

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__version__ = "0.1.0"
__all__ = [
    "AsyncAPIClient", "CannotRun", "ClientError", "InputError", "Outcome", "Policy", "Refused",
    "RequestError", "ServiceFailed", "StateError", "Traffic", "UnknownId",
]  # fmt: skip

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
    """One request will not be answered."""

    request_id: str | None = None
    """Its id, if it was submitted."""


class Refused(RequestError):
    """The request is at fault."""

    index: int | None = None
    """Of the text that is at fault, if one is."""


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
    """

    def __init__(
        self, reason: str, *, arrived: bool = True, retry_after: float | None = None
    ) -> None:
        super().__init__(reason)
        self.arrived = arrived
        self.retry_after = retry_after


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


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the input.

    Attributes:
        text: to classify; None if the row has none.
        original: what the output repeats: a line, CSV fields, or a JSON object.
        problem: why there is no text.
    """

    text: str | None
    original: str | list[str] | dict[str, object]
    problem: str | None = None

    def chars(self) -> int:
        """How much of it is held until it is written, its text included."""
        if isinstance(self.original, str):
            return len(self.original)
        fields = self.original.values() if isinstance(self.original, dict) else self.original
        return sum(map(len, map(str, fields)))

    def fingerprint(self) -> bytes:
        """All of the row."""
        value = self.original if isinstance(self.original, str) else json.dumps(self.original)
        return value.encode("utf-8", "surrogatepass") + b"\0"


@dataclass(frozen=True, slots=True)
class Job:
    """Rows whose texts begin as one request.

    Attributes:
        first: the number of the first row, from 0.
        digest: of all rows up to its last, as SHA-256 in hexadecimal; "" if nobody needs it.
    """

    first: int
    rows: tuple[Row, ...]
    digest: str = ""

    @property
    def end(self) -> int:
        """The number of the row after the last."""
        return self.first + len(self.rows)


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


def read_answer(
    response: httpx.Response, name: str, known: Sequence[str] = ()
) -> dict[str, object]:
    """The JSON object in an answer; its ``name`` is a string, one of ``known`` if there are any."""
    try:
        answer = json.loads(response.content)
    except ValueError:
        raise RequestError(f"the answer is not JSON: {response.text[:200]!r}") from None
    if not isinstance(answer, dict):
        raise RequestError(f"the answer is no object: {response.text[:200]!r}")
    found = answer.get(name)
    if not isinstance(found, str) or not found or (known and found not in known):
        raise RequestError(f"the answer has no {name}: {response.text[:200]!r}")
    return answer


def read_outcomes(result: object, texts: Sequence[str], request_id: str) -> list[Outcome]:
    """What the result of a request says of each of its texts.

    Raises:
        Refused, ServiceFailed: it says that all of them were not classified.
        RequestError: it is nothing that a sentiment service answers.
    """
    if not isinstance(result, dict):
        raise RequestError(f"the result is no object: {result!r}")
    if "error" in result:
        raise _whole_error(result["error"])
    if len(texts) == 1 and "predictions" not in result:
        return [Outcome(texts[0], request_id, result)]
    predictions = result.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != len(texts):
        found = len(predictions) if isinstance(predictions, list) else "no"
        raise RequestError(f"the result has {found} predictions for {len(texts)} texts")
    shared = {"model": result["model"]} if "model" in result else {}
    return [
        _outcome(text, request_id, each, shared)
        for text, each in zip(texts, predictions, strict=True)
    ]


def _outcome(text: str, request_id: str, found: object, shared: dict[str, object]) -> Outcome:
    if not isinstance(found, dict):
        return Outcome(text, request_id, error=f"the prediction is no object: {found!r}")
    if "error" in found:
        return Outcome(text, request_id, error=_reason(found["error"]))
    return Outcome(text, request_id, found | shared)


_INDEXED = re.compile(r"input_text\[(\d+)\]")


def _reason(error: object) -> str:
    """The words of an error, without the index that the text had in its request."""
    fields = error if isinstance(error, dict) else {}
    words = fields.get("detail") or fields.get("message") or fields.get("title") or error
    return _INDEXED.sub("input_text", str(words))


def _whole_error(error: object) -> RequestError:
    fields = error if isinstance(error, dict) else {}
    status = fields.get("status")
    if isinstance(status, int) and (status >= 500 or status == 429):
        return ServiceFailed(_reason(error))
    refused = Refused(_reason(error))
    if at_fault := _INDEXED.match(str(fields.get("field", ""))):
        refused.index = int(at_fault[1])
    return refused


def read_retry_after(value: str | None) -> float | None:
    """Seconds from a ``Retry-After``: a number of them, or a date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return max(0.0, float(value))
    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    return None


# --- when to ask again ----------------------------------------------------------------------------

FIRST_PAUSE, LONGEST_PAUSE = 0.03, 10.0
"""Seconds between polls of a request, at least and at most."""

FIRST_RETRY, READY_PAUSE = 0.1, 1.0
"""Seconds until what went wrong is tried again, and until a sample is, of a service not ready."""

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
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await event.wait()
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


# --- the gateway over HTTP ------------------------------------------------------------------------

KEEPALIVE_SECONDS = 4.0
"""Shorter than the 5 s of many servers: a connection is not used in the moment it is closed."""


class Wire:
    """The two requests that a gateway knows; the arguments are those of the client.

    What may succeed when it is tried again raises :class:`_Trouble`.
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
        self._traffic = traffic
        # No compression: the container gets this header too, and Cortex does not decode its answer.
        fields = {
            "accept": "application/json",
            "accept-encoding": "identity",
            "content-type": "application/json",
            "user-agent": f"async_requests/{__version__}",
        }
        fields |= {name.lower(): value for name, value in headers}
        self._headers = [(name.title().encode(), value.encode()) for name, value in fields.items()]
        secure = self._url.scheme == "https"
        self._connect = functools.partial(
            httpx.AsyncClient,
            timeout=httpx.Timeout(30.0, connect=10.0),
            limits=httpx.Limits(max_connections=1, keepalive_expiry=KEEPALIVE_SECONDS),
            transport=transport,
            verify=httpx.create_ssl_context(verify=verify) if secure else False,
        )
        # A client with one pool looks at all of its connections before and after every request;
        # with 16 that is more work than the request. These have one each and are made when they
        # are needed. The last one first: it is most likely still connected.
        self._free: list[httpx.AsyncClient] = []
        self._room = asyncio.Semaphore(policy.concurrency)
        self._proven = asyncio.Event()
        self._not_before = 0.0
        self._trouble_since: float | None = None
        self._last_good = time.monotonic()

    async def proven_by(self, task: asyncio.Task[Any]) -> None:
        """Wait until the endpoint has answered as an AsyncAPI does, or ``task`` is done.

        One at a time until then: a wrong endpoint is not hit sixteenfold.
        """
        if not self._proven.is_set():
            proven = asyncio.create_task(self._proven.wait())
            try:
                await asyncio.wait({task, proven}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                proven.cancel()

    async def close(self) -> None:
        """Close the connections."""
        while self._free:
            await self._free.pop().aclose()

    async def post(self, request_id: str, body: bytes) -> str:
        """Submit once; returns the id that the gateway gave, ours if it keeps ids."""
        if (pause := self._not_before - time.monotonic()) > 0:  # as the gateway has asked for
            await asyncio.sleep(_longer(pause))
        self._traffic.posts += 1
        response = await self._exchange("POST", self._url, request_id, body)
        try:
            found = read_answer(response, "id")["id"]
        except RequestError as error:
            if self._proven.is_set():
                raise
            text = f"{self._url} is no AsyncAPI's endpoint, or the container's: {error}"
            raise CannotRun(text) from error
        self._proven.set()
        return str(found)

    async def poll(self, request_id: str) -> dict[str, object]:
        """The status object of a request, asked for once."""
        self._traffic.polls += 1
        path = self._url.raw_path + b"/" + quote(request_id, safe="").encode()
        response = await self._exchange("GET", self._url.copy_with(raw_path=path))
        answer = read_answer(response, "status", STATUSES)
        self._proven.set()
        return answer

    async def patiently(self, exchange: Callable[[], Awaitable[T]]) -> T:
        """What an exchange returns, tried again with back-off and jitter while that may help.

        Raises:
            RequestError: it has failed too often while the gateway answered others.
            CannotRun: the gateway has answered nothing for too long.
        """
        pause, strikes, last = FIRST_RETRY, 0, -1.0
        while True:
            try:
                return await exchange()
            except _Trouble as trouble:
                self._check_alive(trouble)
                if trouble.retry_after is None and self._last_good > last:
                    strikes += 1
                    if strikes > MAX_STRIKES:
                        raise RequestError(f"{trouble}, {strikes} times") from trouble
                slept = max(jitter(pause), _longer(trouble.retry_after or 0.0))
            last = time.monotonic()
            self._traffic.retries += 1
            await asyncio.sleep(slept)
            pause = min(pause * 2, LONGEST_PAUSE)
            if self._proven.is_set() and slept > PROBE_SECONDS and self._last_good <= last:
                # Nobody else asks: does the gateway answer nothing, or only not this?
                with contextlib.suppress(ClientError):
                    await self.poll(str(uuid.uuid4()))

    def _check_alive(self, trouble: _Trouble) -> None:
        # A gateway that asks to wait is not gone; one that asks for ever is of no use.
        limit = self._policy.retry_for if trouble.retry_after is None else self._policy.timeout
        now = time.monotonic()
        self._trouble_since = self._trouble_since or now
        if now - self._trouble_since > limit:
            text = f"{self._url} has given no good answer for {limit:g} s: {trouble}"
            raise CannotRun(text) from trouble

    async def _exchange(
        self, method: str, url: httpx.URL, request_id: str = "", body: bytes = b""
    ) -> httpx.Response:
        headers = self._headers
        if request_id:
            headers = [*headers, (b"X-Request-Id", request_id.encode())]
        # The client's own build_request merges what is merged already: a fifth of the cost.
        request = httpx.Request(method, url, headers=headers, content=body or None)
        async with self._room:
            client = self._free.pop() if self._free else self._connect()
            try:
                response = await client.send(request)
            except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
                if not self._proven.is_set():
                    text = f"{self._url} cannot be reached: {_words(error)}"
                    raise CannotRun(text) from error
                raise _Trouble(_words(error), arrived=False) from error
            except (httpx.TransportError, httpx.DecodingError) as error:
                raise _Trouble(_words(error)) from error
            finally:
                self._free.append(client)
        if response.status_code == 200:
            self._answered()
            return response
        raise self._busy(response) or self._wrong(response)

    def _answered(self) -> None:
        self._last_good = time.monotonic()
        self._trouble_since = None

    def _busy(self, response: httpx.Response) -> Exception | None:
        """The error for an answer that says so."""
        status, said = response.status_code, _said(response)
        if status < 500 and status != 429:
            return None
        if "cannot unmarshal" in response.text:  # for good, says Cortex's gateway of such a result
            return RequestError(said)
        retry_after = read_retry_after(response.headers.get("Retry-After"))
        if retry_after is not None:
            retry_after = min(retry_after, self._policy.timeout)
            self._not_before = max(self._not_before, time.monotonic() + retry_after)
        return _Trouble(said, arrived=status != 429, retry_after=retry_after)

    def _wrong(self, response: httpx.Response) -> Exception:
        """The error for an answer that is neither good nor to be tried again as it is."""
        status, said, proven = response.status_code, _said(response), self._proven.is_set()
        if status == 404 and response.text.startswith("error: id "):
            self._answered()
            self._proven.set()
            request_id = response.url.path.rpartition("/")[2]
            return UnknownId(f"the gateway does not know id {request_id}")
        if status in {404, 405}:
            if proven:  # a gateway that is being replaced
                return _Trouble(said)
            return CannotRun(f"{self._url} is not there ({said}): is the name of the API right?")
        self._answered()
        if response.is_redirect:
            target = response.headers.get("Location", "another place")
            return CannotRun(f"{self._url} has moved to {target}: give that as the endpoint")
        if status in {401, 403}:
            return CannotRun(f"{self._url} does not let us in ({said}): see --header")
        if not proven:
            return CannotRun(f"{self._url} refuses requests: {said}")
        return Refused(said) if status in {413, 422} else RequestError(said)


def parse_endpoint(endpoint: str) -> httpx.URL:
    """The URL of an API, without a slash at its end."""
    try:
        url = httpx.URL(endpoint)
    except (httpx.InvalidURL, ValueError) as error:
        raise CannotRun(f"the endpoint {endpoint!r} is no URL: {error}") from error
    if url.scheme not in {"http", "https"} or not url.host or url.query:
        raise CannotRun(f"the endpoint {endpoint!r} must be http://host/name or https://host/name")
    return url.copy_with(raw_path=url.raw_path.rstrip(b"/") or b"/")


def _words(error: Exception) -> str:
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
    return f"{name}: {error}" if str(error) else name


def _said(response: httpx.Response) -> str:
    """Status and first words of an answer, for people."""
    words = " ".join(response.text.split())[:200]
    return f"HTTP {response.status_code}" + (f": {words}" if words else "")


def _longer(seconds: float) -> float:
    """``seconds`` that the gateway has named, and up to a quarter: not all at that moment."""
    return seconds * random.uniform(1.0, 1.25)  # noqa: S311  (no secret)


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

    def load(self, first: int) -> None:
        """Read the ids of requests from row ``first`` on; the others are not asked for."""

    def close(self) -> None:
        """Let go of it."""


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
        self._stopping = False
        self._feeding: set[asyncio.Task[None]] = set()
        self._failed_in_a_row = 0

    async def __aenter__(self) -> AsyncAPIClient:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._wire.close()

    def stop(self) -> None:
        """Submit nothing more: what is submitted is waited for, and :meth:`map` ends after it."""
        self._stopping = True
        for task in self._feeding:
            task.cancel()

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
                        return await self._sample()
                    except ClientError as error:
                        reason = str(error)
                    await asyncio.sleep(jitter(READY_PAUSE))
        except TimeoutError:
            text = f"{self._endpoint} is not ready after {seconds:g} s: {reason}"
            raise CannotRun(text) from None

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
        options = {"endpoint": self._endpoint, "batch_size": self.policy.batch_size}
        opened = Journal() if state is None else StateFile(Path(state), options)
        with contextlib.closing(opened) as journal:
            journal.load(0)
            jobs = _jobs(texts, self.policy.batch_size)
            async with contextlib.aclosing(self.run(jobs, journal)) as finished:
                async for _, outcomes in finished:
                    for outcome in outcomes:
                        yield outcome

    async def run(
        self, jobs: AsyncIterator[Job], journal: Journal
    ) -> AsyncGenerator[tuple[Job, list[Outcome]], None]:
        """Classify jobs; each comes back with its outcomes, in order.

        Twice as many as the window are on their way: a job that is slow must not keep those behind
        it from being submitted while it is waited for.
        """
        if self._stopping:
            return
        room = asyncio.Semaphore(2 * self.policy.window)
        started: asyncio.Queue[tuple[Job, asyncio.Task[list[Outcome]]] | None] = asyncio.Queue()

        async def feed() -> None:
            await room.acquire()
            async for job in jobs:
                await journal.reserve(job.end)
                task = asyncio.create_task(self._outcomes(job, journal))
                started.put_nowait((job, task))
                await self._wire.proven_by(task)
                await room.acquire()

        feeding = asyncio.create_task(feed())
        feeding.add_done_callback(lambda _: started.put_nowait(None))
        self._feeding.add(feeding)
        try:
            while (item := await started.get()) is not None:
                job, task = item
                yield job, await task
                room.release()
            if not feeding.cancelled():
                feeding.result()
        except Stopped:
            pass
        finally:
            self._feeding.discard(feeding)
            await _cancel(feeding)
            items = [started.get_nowait() for _ in range(started.qsize())]
            await _cancel(*(item[1] for item in items if item is not None))

    async def _outcomes(self, job: Job, journal: Journal) -> list[Outcome]:
        """What becomes of the rows of a job; those without a text are not sent."""
        texts = tuple(row.text for row in job.rows if row.text is not None)
        found = iter(await self._classify(job.first, texts, journal))
        self.traffic.failed += len(job.rows) - len(texts)
        return [
            Outcome("", error=row.problem) if row.text is None else next(found) for row in job.rows
        ]

    async def _classify(
        self, first: int, texts: tuple[str, ...], journal: Journal
    ) -> list[Outcome]:
        """What becomes of texts that begin as one request, however many it takes."""
        failed = forgotten = 0
        while True:
            try:
                return await self._once((first, len(texts), failed + forgotten), texts, journal)
            except UnknownId as error:
                forgotten += 1
                if forgotten > MAX_STRIKES:
                    return self._failures(texts, error)
                logger.warning("%s: submitted again", error)
            except (Refused, ServiceFailed) as error:
                failed += isinstance(error, ServiceFailed)
                if isinstance(error, Refused) or failed > self.policy.retry_failed:
                    return await self._in_parts(first, texts, journal, error)
            except RequestError as error:
                return self._failures(texts, error)
            self.traffic.resubmitted += 1

    async def _in_parts(
        self, first: int, texts: tuple[str, ...], journal: Journal, error: Refused | ServiceFailed
    ) -> list[Outcome]:
        """Send again, without the text that is at fault or else in halves."""
        # One text can bring down a request of many; but if nothing works, parts do not either.
        hopeless = self._failed_in_a_row > 2 * self.policy.window
        if len(texts) == 1 or (hopeless and isinstance(error, ServiceFailed)):
            return self._failures(texts, error)
        self.traffic.splits += 1
        logger.warning("a request of %d texts was refused (%s): sent in parts", len(texts), error)
        start = end = len(texts) // 2
        if isinstance(error, Refused) and error.index is not None and error.index < len(texts):
            start, end = error.index, error.index + 1
        before, after = await _all(
            self._classify(first, texts[:start], journal),
            self._classify(first + end, texts[end:], journal),
        )
        return [*before, *self._failures(texts[start:end], error), *after]

    async def _once(self, key: Key, texts: tuple[str, ...], journal: Journal) -> list[Outcome]:
        """Submit one request, unless it is, and wait for its end."""
        if not texts:
            return []
        async with self._unfinished:
            body = encode_texts(texts)
            digest = hashlib.sha256(body).digest()[:16]
            request_id = known = journal.known(key, digest)
            since = time.monotonic()
            if request_id is None:
                if self._stopping:
                    raise Stopped
                request_id = await self._submit(key, body, journal)
                await journal.submitted(key, digest, request_id)
            try:
                result = await self._result(request_id, len(texts), since, at_once=bool(known))
                outcomes = read_outcomes(result, texts, request_id)
            except RequestError as error:
                error.request_id = request_id
                raise
        failed = sum(outcome.error is not None for outcome in outcomes)
        self.traffic.failed += failed
        self.traffic.completed += len(texts) - failed
        return outcomes

    async def _submit(self, key: Key, body: bytes, journal: Journal) -> str:
        """Submit until the gateway has the request; ask before sending what may have arrived."""
        intended = journal.intended(key)
        ask = journal.may_be_sent(key)

        async def submit() -> str:
            nonlocal ask
            try:
                if ask:
                    with contextlib.suppress(UnknownId):
                        await self._wire.poll(intended)
                        return intended
                return await self._wire.post(intended, body)
            except _Trouble as trouble:
                ask = ask or trouble.arrived
                raise

        return await self._wire.patiently(submit)

    async def _result(
        self, request_id: str, count: int, since: float, *, at_once: bool = False
    ) -> object:
        """Poll until the request has ended; returns its result."""
        rank = self._pace.submitted()
        status, polls = "in_queue", 0
        self.traffic.move(count, "", status)
        try:
            while True:
                if polls or not at_once:
                    await self._pace.wait(rank, since, polls)
                answer = await self._wire.patiently(lambda: self._wire.poll(request_id))
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

    def _failures(self, texts: Sequence[str], error: RequestError) -> list[Outcome]:
        self.traffic.failed += len(texts)
        return [Outcome(text, error.request_id, error=str(error)) for text in texts]

    async def _sample(self) -> None:
        """Classify a text of our own, each exchange once."""
        request_id = await self._wire.post(str(uuid.uuid4()), encode_texts(SAMPLE_TEXTS[:1]))
        since = time.monotonic()
        status: object = "in_queue"
        while status != "completed":
            await asyncio.sleep(self._pace.back_off(since))
            status = (await self._wire.poll(request_id))["status"]
            if status == "failed":
                raise ServiceFailed("a sample text failed; the service's log has the reason")


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """End tasks; their errors are of no interest any more."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _all(*awaitables: Awaitable[T]) -> list[T]:
    """All results; if one raises, the others are cancelled before it is raised."""
    tasks = [asyncio.ensure_future(each) for each in awaitables]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await _cancel(*tasks)


class Cutter:
    """Cuts rows into jobs of ``size``, shorter ones where rows are long.

    Args:
        first: the number of the next row.
        digest: of the rows before it; None if no job needs one.
    """

    def __init__(self, size: int, first: int = 0, digest: hashlib._Hash | None = None) -> None:
        self._size = size
        self._first = first
        self._digest = digest
        self._rows: list[Row] = []
        self._chars = 0

    def add(self, row: Row) -> Job | None:
        """Add a row; returns a job if it is full now."""
        self._rows.append(row)
        self._chars += row.chars()
        full = len(self._rows) == self._size or self._chars >= BATCH_CHARS
        return self.rest() if full else None

    def rest(self) -> Job | None:
        """The rows that are in no job yet."""
        if not self._rows:
            return None
        digest = ""
        if self._digest is not None:
            self._digest.update(b"".join(row.fingerprint() for row in self._rows))
            digest = self._digest.hexdigest()
        job = Job(self._first, tuple(self._rows), digest)
        self._first, self._rows, self._chars = job.end, [], 0
        return job


async def _jobs(texts: Iterable[str] | AsyncIterable[str], size: int) -> AsyncIterator[Job]:
    cutter = Cutter(size)
    async for text in texts if isinstance(texts, AsyncIterable) else _each(texts):
        if job := cutter.add(Row(text, text)):
            yield job
    if job := cutter.rest():
        yield job


async def _each(texts: Iterable[str]) -> AsyncIterator[str]:
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
    "INSERT OR REPLACE INTO requests (first, count, attempt, id, digest) VALUES (?, ?, ?, ?, ?)"
)

FIRST_FAILURES = 5


@dataclass(slots=True)
class Tally:
    """What is written: kept in the state file, so that a summary is that of the whole run.

    Attributes:
        failures: the first ones, as row number from 1 and reason.
        seconds: spent in all sessions.
    """

    completed: int = 0
    failed: int = 0
    labels: dict[str, int] = field(default_factory=dict)
    failures: list[tuple[int, str]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rows(self) -> int:
        return self.completed + self.failed

    def count(self, number: int, outcome: Outcome) -> None:
        if outcome.error is None:
            self.completed += 1
            label = outcome.label or "no label"
            self.labels[label] = self.labels.get(label, 0) + 1
            return
        self.failed += 1
        if len(self.failures) < FIRST_FAILURES:
            self.failures.append((number, outcome.error))


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

    Attributes:
        checkpoint: how far the output is.

    Raises:
        StateError: the file is another run's, in use, or no state file.
    """

    def __init__(self, path: Path, options: Mapping[str, object]) -> None:
        self._path = path
        self._waiting: list[tuple[str, tuple[object, ...]]] = []
        self._writing = asyncio.Lock()
        self._broken: StateError | None = None
        self._known: dict[Key, tuple[str, bytes]] = {}
        with contextlib.ExitStack() as stack:
            try:
                self._database = sqlite3.connect(
                    path, isolation_level=None, check_same_thread=False, timeout=0.0
                )
                stack.callback(self.close)
                self._open(options)
            except sqlite3.Error as error:
                problem = str(error)
                if "locked" in problem:
                    problem = "another run uses it"
                elif not isinstance(error, sqlite3.OperationalError):
                    problem = f"is no state file, or damaged: {error}"
                raise StateError(f"--state {path}: {problem}") from error
            stack.pop_all()

    def _open(self, options: Mapping[str, object]) -> None:
        execute = self._database.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")  # until it is closed, or the process ends
        (mark,) = execute("PRAGMA application_id").fetchone()
        (version,) = execute("PRAGMA user_version").fetchone()
        (tables,) = execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and (mark, version) != (STATE_MARK, STATE_VERSION):
            raise StateError(f"--state {self._path}: is no state file of this version")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute("BEGIN EXCLUSIVE")
        if not tables:
            for statement in STATE_SCHEMA.split(";\n"):
                execute(statement)
            execute(f"PRAGMA application_id = {STATE_MARK}")
            execute(f"PRAGMA user_version = {STATE_VERSION}")
            execute(PUT, ("run", str(uuid.uuid4())))
            execute(PUT, ("options", json.dumps(options)))
        execute("COMMIT")
        values = dict(execute("SELECT name, value FROM run").fetchall())
        recorded = json.loads(values["options"])
        for name in sorted(recorded.keys() | options.keys()):
            before, now = recorded.get(name), options.get(name)
            if before != now:
                raise StateError(
                    f"--state {self._path}: the run was begun with {name} {before!r}, not {now!r};"
                    " give the same options, or another state file"
                )
        super().__init__(uuid.UUID(values["run"]))
        self._reserved = self._sent_before = int(values.get("reserved", 0))
        fields = json.loads(values.get("checkpoint", "{}"))
        self.checkpoint = Checkpoint(**fields | {"tally": Tally(**fields.get("tally", {}))})

    def close(self) -> None:
        self._database.close()

    def load(self, first: int) -> None:
        query = "SELECT first, count, attempt, id, digest FROM requests WHERE first >= ?"
        for row, count, attempt, request_id, digest in self._database.execute(query, (first,)):
            self._known[row, count, attempt] = request_id, digest

    def known(self, key: Key, digest: bytes) -> str | None:
        """See :class:`Journal`."""
        request_id, recorded = self._known.pop(key, (None, digest))
        if recorded != digest:
            raise StateError(
                f"--state {self._path}: row {key[0] + 1} of the input is not what was submitted; "
                "give the same input, or another state file"
            )
        return request_id

    def may_be_sent(self, key: Key) -> bool:
        return key[0] < self._sent_before

    async def reserve(self, end: int) -> None:
        if end > self._reserved:
            self._reserved = end + (end - self._reserved) * RESERVED_ROWS
            await self._write(PUT, ("reserved", str(self._reserved)))

    async def submitted(self, key: Key, digest: bytes, request_id: str) -> None:
        await self._write(PUT_REQUEST, (*key, request_id, digest))

    async def save(self, checkpoint: Checkpoint) -> None:
        """Record how far the output is; on disk on return."""
        await self._write(PUT, ("checkpoint", json.dumps(asdict(checkpoint))))

    async def _write(self, statement: str, values: tuple[object, ...]) -> None:
        """Commit a statement; those that come in meanwhile share the next commit."""
        self._waiting.append((statement, values))
        await asyncio.shield(self._write_all())

    async def _write_all(self) -> None:
        async with self._writing:
            group, self._waiting = self._waiting, []
            try:
                if group and self._broken is None:
                    await asyncio.to_thread(self._commit, group)
            except BaseException as error:
                self._broken = StateError(f"--state {self._path}: cannot be written: {error}")
                if not isinstance(error, sqlite3.Error):
                    raise
        if self._broken is not None:
            raise self._broken

    def _commit(self, group: Sequence[tuple[str, tuple[object, ...]]]) -> None:
        with self._database:  # a transaction: all of them, or none
            self._database.execute("BEGIN")
            for statement, values in group:
                self._database.execute(statement, values)


# --- the input ------------------------------------------------------------------------------------

GZIP_MAGIC = b"\x1f\x8b"
FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text"}
DELIMITERS = {"csv": ",", "tsv": "\t"}
TEXT_NAMES = ("text", "input_text")
"""Columns and fields that are taken when none is named."""


@dataclass(frozen=True, slots=True)
class InputOptions:
    """How to read rows, as :func:`_parser` says; "" is what the file's name and first row say."""

    format: str = ""
    column: str = ""
    field: str = ""
    header_row: bool = True
    delimiter: str = ""
    encoding: str = "utf-8"


class Arguments:
    """Texts of the command line, as rows.

    Attributes:
        columns: the names of the fields in a row, if they have any.
        fraction: how much of the input is read, from 0 to 1; None if nobody can know.
    """

    columns: Sequence[str] | None = ("text",)
    fraction: float | None = 1.0

    def __init__(self, texts: Sequence[str]) -> None:
        self._rows: Iterator[Row] = (Row(text, text) for text in texts)

    def __iter__(self) -> Iterator[Row]:
        """The rows, once."""
        return self._rows


class Source(Arguments):
    """Rows of a file, or of standard input for ``-``, read as they are asked for."""

    def __init__(self, name: str, options: InputOptions) -> None:
        self._name = name if name != "-" else "standard input"
        self._options = options
        self._format = options.format or _format_of(name, options)
        self._count = 0
        try:
            # Not sys.stdin: a thread that waits in it would hold up the end of the program.
            self._file = open(0 if name == "-" else name, "rb", 0, closefd=name != "-")  # noqa: SIM115
        except OSError as error:
            raise InputError(f"{name}: {error.strerror}") from error
        found = os.fstat(self._file.fileno())
        self._size = found.st_size if stat.S_ISREG(found.st_mode) else 0
        self.fraction = 0.0 if self._size else None
        try:
            with self._input_errors():
                self._lines = self._open()
                self._rows = self._reader(self._lines)
        except InputError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file, even if a thread still reads it."""
        self._file.close()

    def __iter__(self) -> Iterator[Row]:
        """The rows, once."""
        with self._input_errors():
            for row in self._rows:
                self._count += 1
                if not self._count % 256 and self._size:
                    self.fraction = min(1.0, self._file.tell() / self._size)
                yield row
        self.fraction = 1.0

    def _open(self) -> io.TextIOWrapper:
        buffered = io.BufferedReader(self._file)
        packed = buffered.peek(2)[:2] == GZIP_MAGIC
        binary: Any = gzip.GzipFile(fileobj=buffered) if packed else buffered
        encoding = self._options.encoding
        return io.TextIOWrapper(
            binary,
            encoding="utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding,
            # Only line feeds end a line of text; in CSV, quotes decide.
            newline="" if self._format in DELIMITERS else "\n",
        )

    def _reader(self, lines: io.TextIOWrapper) -> Iterator[Row]:
        options = self._options
        if self._format == "text":
            return map(_text_row, lines)
        if self._format == "jsonl":
            return (_json_row(line, options.field) for line in lines)
        csv.field_size_limit(2**31 - 1)
        delimiter = options.delimiter or DELIMITERS[self._format]
        table = csv.reader(lines, delimiter=delimiter, strict=True)
        self.columns = next(table, []) if options.header_row else None
        if self.columns == []:
            return iter(())
        place = find_column(self.columns, options.column)
        count = len(self.columns) if self.columns else None
        return (_table_row(fields, place, count) for fields in table)

    @contextlib.contextmanager
    def _input_errors(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            raise InputError(f"{self._name}: {error}") from error
        except (OSError, EOFError, csv.Error, zlib.error, UnicodeError) as error:
            words = str(error)
            if isinstance(error, UnicodeError):
                words = f"is not {self._options.encoding}; see --encoding"
            raise InputError(f"{self._name}, after row {self._count}: {words}") from error


def find_column(columns: Sequence[str] | None, wanted: str) -> int:
    """The place of a column, by name or by number from 1."""
    number = int(wanted) if wanted.isdecimal() else 0
    if columns is None:
        if not number:
            raise InputError("without a header row, --column must be a number from 1")
        return number - 1
    for name in [wanted] if wanted else TEXT_NAMES:
        if name in columns:
            return list(columns).index(name)
    if 1 <= number <= len(columns):
        return number - 1
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


def _text_row(line: str) -> Row:
    text = line.removesuffix("\n").removesuffix("\r")
    return Row(text, text)


def _json_row(line: str, wanted: str) -> Row:
    line = line.strip()
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
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


def read_jobs(rows: Iterable[Row], size: int, done: Checkpoint, *, digests: bool) -> Iterator[Job]:
    """Jobs of ``size`` rows, after those that are done."""
    rows, digest, first = iter(rows), hashlib.sha256(), 0
    for row in itertools.islice(rows, done.rows):
        digest.update(row.fingerprint())
        first += 1
    if done.rows and (first, digest.hexdigest()) != (done.rows, done.digest):
        raise StateError(
            f"the input is not that of the state file: its first {done.rows} rows are others; "
            "give the same input, or another state file"
        )
    cutter = Cutter(size, first, digest if digests else None)
    for row in rows:
        if job := cutter.add(row):
            yield job
    if job := cutter.rest():
        yield job


async def in_thread(jobs: Iterable[Job], ahead: int = 8) -> AsyncGenerator[Job, None]:
    """``jobs``, read by a thread: a slow input must not hold up the requests.

    The thread is a daemon: it may wait for standard input when the program ends.
    """
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Job | Exception | None] = asyncio.Queue()
    room = threading.Semaphore(ahead)
    closed = threading.Event()

    def run() -> None:
        end = None
        try:
            for job in jobs:
                room.acquire()
                if closed.is_set():
                    return
                loop.call_soon_threadsafe(queue.put_nowait, job)
        except Exception as error:
            end = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(queue.put_nowait, end)

    threading.Thread(target=run, daemon=True, name="input").start()
    try:
        while isinstance(item := await queue.get(), Job):
            room.release()
            yield item
        if item is not None:
            raise item
    finally:
        closed.set()
        room.release()


# --- the output -----------------------------------------------------------------------------------

ADDED = ("label", "score", "id", "error")


def added_names(taken: Iterable[str]) -> tuple[str, ...]:
    """The names of what is added to a row; one that the input has already gets a prefix."""
    taken = set(taken)
    return tuple(f"result_{name}" if name in taken else name for name in ADDED)


def formatter(kind: str, columns: Sequence[str] | None) -> tuple[str, Callable[..., str]]:
    """What comes before the first row, and what makes a line of a row and its outcome."""
    if kind == "jsonl":
        return "", functools.partial(json_line, columns)
    line = functools.partial(csv_line, "\t" if kind == "tsv" else ",")

    def row_line(row: Row, outcome: Outcome) -> str:
        original = row.original if isinstance(row.original, list) else [outcome.text]
        return line([*original, *_added(outcome)])

    header = "" if columns is None else line([*columns, *added_names(columns)])
    return header, row_line


def json_line(columns: Sequence[str] | None, row: Row, outcome: Outcome) -> str:
    """A JSON object: the row's fields, what is known of label, score, id and error, the result."""
    fields: dict[str, object] = {"text": row.original}
    if isinstance(row.original, dict):
        fields = dict(row.original)
    elif isinstance(row.original, list):
        names = columns or [f"column_{n + 1}" for n in range(len(row.original))]
        fields = dict(zip(names, row.original, strict=True))
    added = zip(added_names(fields), _added(outcome), strict=True)
    fields |= {name: value for name, value in added if value is not None}
    if outcome.result is not None:
        fields["result_result" if "result" in fields else "result"] = outcome.result
    return _escaped(json.dumps(fields, ensure_ascii=False) + "\n")


def csv_line(delimiter: str, fields: Sequence[object]) -> str:
    """One row of a CSV."""
    buffer = io.StringIO()
    # Before Python 3.13 a line break is quoted only if the terminator holds it.
    csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(fields)
    return _escaped(buffer.getvalue().removesuffix("\r\n") + "\n")


def _added(outcome: Outcome) -> tuple[object, ...]:
    return outcome.label, outcome.score, outcome.id, outcome.error


def _escaped(line: str) -> str:
    """An argument that is no UTF-8 holds half characters, which UTF-8 cannot encode."""
    return line.encode(errors="backslashreplace").decode()


class Output:
    """Standard output, where a result does not wait for the next one.

    Args:
        console: the terminal's, if it is one with a live display below the results.

    Attributes:
        begin: where an earlier session has left it.
    """

    begin = Checkpoint()

    def __init__(self, console: Console | None = None) -> None:
        self._console = console
        self._file: IO[bytes] | None = open(1, "wb", closefd=False)  # noqa: SIM115

    def write(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, end="", markup=False, highlight=False, soft_wrap=True)
        elif self._file is not None:
            self._file.write(text.encode())
            self._file.flush()

    def finish(self) -> None:
        """It is complete."""

    def close(self) -> None:
        """Let go of it; whoever read it may be gone."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()


TAIL_BYTES = 4096


class FileOutput(Output):
    """A file that has its name when it is complete, and is ``<name>.part`` before.

    An earlier file of that name is there until then, and no reader takes half a file for a whole.
    What is no regular file, such as a pipe or /dev/null, is written as it is.

    Args:
        done: what the state vouches for; if the file is gone or another, it begins anew.
    """

    def __init__(self, path: Path, done: Checkpoint) -> None:
        self.path = path.resolve()  # a symbolic link stays one
        self._special = self.path.exists() and not self.path.is_file()
        self._part = self.path.with_name(self.path.name + ".part")
        self._last = b""
        self._held = self._find(done) if done.rows else None
        self.begin = done if self._held else Checkpoint()
        self.size = self.begin.size
        self._file = None if self.begin.done else self._open()

    def _find(self, done: Checkpoint) -> Path | None:
        """The file that ends, or goes on, where ``done`` says."""
        for each in (self._part, self.path):
            if each.is_file() and each.stat().st_size >= done.size:
                with each.open("rb") as file:
                    file.seek(max(0, done.size - TAIL_BYTES))
                    self._last = file.read(min(done.size, TAIL_BYTES))
                if self.tail == done.tail:
                    return each
        self._last = b""
        return None

    def _open(self) -> IO[bytes]:
        try:
            if self._held == self.path:  # complete, but the input has grown
                self.path.replace(self._part)
            self._held = self.path if self._special else self._part
            file = self._held.open("r+b" if self.size else "wb")
            if self.size:
                file.truncate(self.size)
                file.seek(self.size)
        except OSError as error:
            raise CannotRun(f"--output {self.path}: {error.strerror}") from error
        return file

    @property
    def tail(self) -> str:
        return hashlib.sha256(self._last).hexdigest()

    def write(self, text: str) -> None:
        self._file = self._file or self._open()
        data = text.encode()
        self._file.write(data)
        self.size += len(data)
        self._last = (self._last + data)[-TAIL_BYTES:]

    def sync(self) -> None:
        """All that was written is on disk on return."""
        if self._file is not None:
            self._file.flush()
            if not self._special:
                os.fsync(self._file.fileno())

    def finish(self) -> None:
        self.sync()
        if self._held == self._part:
            self._part.replace(self.path)


# --- what people see ------------------------------------------------------------------------------

LIVE_PERIOD, PLAIN_PERIOD = 0.25, 5.0
"""Seconds between two looks at the progress, on a terminal and elsewhere."""

RATE_SECONDS = 20.0
"""Over which the rate is taken."""

BAR_CELLS = 30


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

    def cells(self) -> dict[str, str]:
        """What is shown, by name."""
        submitted = self.in_queue + self.in_progress + self.completed + self.failed
        return {
            "submitted": f"{submitted:,}",
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
        eta = cells.pop("ETA")
        share = "" if self.fraction is None else f", {self.fraction:.0%}, ETA {eta}"
        return ", ".join(f"{value} {name}" for name, value in cells.items()) + share


def duration(seconds: float) -> str:
    """``0:04``, ``12:30`` or ``3:12:30``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class PlainDisplay:
    """Shows a run to people, as lines on standard error, for files and logs.

    Attributes:
        period: seconds between two calls of :meth:`show`.
    """

    period = PLAIN_PERIOD

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet

    def show(self, progress: Progress) -> None:
        """How far it is."""
        if not self._quiet:
            say(progress.line())

    def say(self, text: str) -> None:
        """A line that stays."""
        say(text)

    def close(self) -> None:
        """The last progress was shown."""


class LiveDisplay(PlainDisplay):
    """Counts and a bar that stay at the bottom of a terminal."""

    period = LIVE_PERIOD

    def __init__(self, console: Console) -> None:
        from rich.live import Live  # here: a script without rich shows plain lines

        self._console = console
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def show(self, progress: Progress) -> None:
        self._live.update(render(progress, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        self._live.stop()


def render(progress: Progress, width: int) -> RenderableType:
    """The counts as a table, the bar below it; 80 columns are enough."""
    from rich.console import Group
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
    share = progress.fraction
    bar.add_row(
        ProgressBar(total=None if share is None else 1.0, completed=share or 0.0),
        "" if share is None else f"{int(share * 100)} %",
    )
    return Group(counts, bar)


def say(text: str) -> None:
    """A line on standard error, whether or not anybody reads it."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


class _Once(logging.Handler):
    """Shows the first message of each kind: the summary counts them all."""

    def __init__(self, display: PlainDisplay) -> None:
        super().__init__()
        self._display = display
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if record.msg not in self._seen:
            self._seen.add(record.msg)
            self._display.say(record.getMessage())


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99, by nearest rank; empty if there is no value."""
    ordered = sorted(values)
    last = len(ordered) - 1
    places = {f"p{p}": min(last, len(ordered) * p // 100) for p in (50, 95, 99)}
    return {name: round(ordered[place], 4) for name, place in places.items() if ordered}


def summary_lines(summary: Mapping[str, Any], bar: str) -> list[str]:
    """A summary for people; ``bar`` is what bars are made of."""
    lines = [
        f"{summary['texts']:,} texts: {summary['completed']:,} completed,"
        f" {summary['failed']:,} failed; {summary['texts_per_second']:,.1f} texts/s"
        f" in {duration(summary['seconds'])}"
    ]
    if latencies := summary["latency_seconds"]:
        words = ", ".join(f"{name} {value:.2f} s" for name, value in latencies.items())
        lines.append(f"from submission to result: {words}")
    lines += label_bars(summary["labels"], bar)
    repeated = {
        "retries": "exchanges that were tried again",
        "resubmitted": "requests that failed or were forgotten, and submitted again",
        "splits": "requests that were refused whole, and sent in parts",
    }
    lines += [f"{words}: {summary[name]:,}" for name, words in repeated.items() if summary[name]]
    if summary["failures"]:
        lines.append("failed first:")
        lines += [f"  row {each['row']}: {each['error']}" for each in summary["failures"]]
    return lines


def label_bars(labels: Mapping[str, int], bar: str) -> list[str]:
    """One line per label, the most frequent one with the longest bar."""
    total, most = sum(labels.values()), max(labels.values(), default=0)
    widest = max(map(len, labels), default=0)
    digits = len(f"{most:,}")
    return [
        f"  {label:{widest}}  {bar * max(1, round(count / most * BAR_CELLS)):{BAR_CELLS}}"
        f"  {count:{digits},}  {count / total:6.1%}"
        for label, count in sorted(labels.items())
    ]


def plot(path: Path, latencies: Sequence[float], scores: Mapping[str, Sequence[float]]) -> None:
    """Histograms of the scores by label, and of the seconds from submission to result."""
    figures = importlib.import_module("matplotlib.figure")
    figure = figures.Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for label, values in sorted(scores.items()):
        left.hist(values, bins=40, range=(0, 1), alpha=0.6, label=label)
        left.legend()
    left.set(xlabel="score", ylabel="texts")
    right.hist(latencies, bins=40)
    right.set(xlabel="seconds from submission to result", ylabel="requests")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise CannotRun(f"--plot {path}: {error}") from error


# --- a run of the command line --------------------------------------------------------------------

SAVE_SECONDS = 1.0
"""Between two checkpoints: what is written after the last is asked for again, not submitted."""


@dataclass
class Run:
    """Takes rows from an input through a client to an output, as a command line says.

    Attributes:
        state: None if the run is not to be resumed.
    """

    options: Options
    client: AsyncAPIClient
    rows: Arguments
    output: Output
    state: StateFile | None
    display: PlainDisplay

    def __post_init__(self) -> None:
        self._begin = self._checkpoint = self.output.begin
        self._tally = Tally(**asdict(self._begin.tally))
        self._read = self._begin.rows
        self._started = self._saved = time.monotonic()
        samples = round(RATE_SECONDS / self.display.period) + 1
        self._samples: deque[tuple[float, int]] = deque(maxlen=samples)
        self._scores: dict[str, array[float]] = {}
        self._early: tuple[int, str] | None = None
        self._complete = False

    async def execute(self) -> int:
        """Do it and say what it came to; returns the exit code."""
        cpu = time.process_time()
        notes = _Once(self.display)
        logger.addHandler(notes)
        showing = asyncio.create_task(self._show())
        try:
            async with self.client:
                code, problem = await self._conclude()
        finally:
            showing.cancel()
            logger.removeHandler(notes)
            self.display.close()
        self._report(code, problem, time.process_time() - cpu)
        return code

    async def _conclude(self) -> tuple[int, str]:
        """Do the work; returns the exit code, and what is in the way if anything is."""
        self._working = asyncio.create_task(self._work())
        if self.options.deadline is not None:
            asyncio.get_running_loop().call_later(self.options.deadline, self._end_at_deadline)
        _on_signals(self._interrupt)
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._working
            if self._early is not None:
                return self._early
            await self._save(done=True)
            self.output.finish()
            self._complete = True
        except CannotRun as error:
            return EXIT_CANNOT_RUN, str(error)
        except BrokenPipeError:
            _drop_output()
            return EXIT_FAILED, ""
        except OSError as error:
            return EXIT_CANNOT_RUN, f"the output cannot be written: {error}"
        return (EXIT_FAILED if self._tally.failed else EXIT_OK), ""

    async def _work(self) -> None:
        """Returns when every row is written, or when the client was stopped."""
        if self.options.wait_ready is not None:
            await self.client.wait_ready(self.options.wait_ready)
        header, self._line = formatter(self.options.output_format, self.rows.columns)
        if not self._begin.rows:
            self.output.write(header)
        size, digests = self.options.policy.batch_size, self.state is not None
        jobs = read_jobs(self._counted(), size, self._begin, digests=digests)
        try:
            async with (
                contextlib.aclosing(in_thread(jobs)) as reading,
                contextlib.aclosing(self.client.run(reading, self.state or Journal())) as ended,
            ):
                async for job, outcomes in ended:
                    self._write(job, outcomes)
                    if time.monotonic() - self._saved > SAVE_SECONDS:
                        await self._save()
        finally:
            await asyncio.shield(self._save())

    def _counted(self) -> Iterator[Row]:
        for self._read, row in enumerate(self.rows, start=1):  # noqa: B020
            yield row

    def _write(self, job: Job, outcomes: Sequence[Outcome]) -> None:
        self.output.write("".join(map(self._line, job.rows, outcomes)))
        self._checkpoint = replace(self._checkpoint, rows=job.end, digest=job.digest)
        for number, outcome in enumerate(outcomes, start=job.first + 1):
            self._tally.count(number, outcome)
            if self.options.plot is not None and outcome.score is not None:
                scores = self._scores.setdefault(str(outcome.label), array("d"))
                scores.append(outcome.score)

    async def _save(self, *, done: bool = False) -> None:
        if self.state is None or not isinstance(self.output, FileOutput):
            return
        if self._checkpoint.rows or done:
            self._tally.seconds = self._begin.tally.seconds + time.monotonic() - self._started
            size, tail = self.output.size, self.output.tail
            # The rows first: a checkpoint must not speak of what the disk has not got.
            await asyncio.to_thread(self.output.sync)
            await self.state.save(
                replace(self._checkpoint, size=size, tail=tail, done=done, tally=self._tally)
            )
        self._saved = time.monotonic()

    def _interrupt(self) -> None:
        """The first Ctrl-C lets what is submitted finish, the second does not."""
        again = self._early is not None
        self._early = EXIT_INTERRUPTED, "interrupted"
        self.client.stop()
        traffic = self.client.traffic
        waiting = traffic.in_queue + traffic.in_progress
        if again or not waiting + traffic.finished:
            self._working.cancel()
            return
        self.display.say(
            f"stopping: waiting for the {waiting:,} texts that are submitted;"
            " Ctrl-C again stops at once"
        )

    def _end_at_deadline(self) -> None:
        problem = f"stopped by --deadline {self.options.deadline:g}"
        self._early = self._early or (EXIT_FAILED, problem)
        self.client.stop()
        self._working.cancel()

    async def _show(self) -> None:
        while True:
            await asyncio.sleep(self.display.period)
            self.display.show(self._progress())

    def _progress(self) -> Progress:
        traffic, begin = self.client.traffic, self._begin
        now, finished = time.monotonic(), begin.rows + traffic.finished
        self._samples.append((now, finished))
        since, before = self._samples[0]
        rate = (finished - before) / (now - since) if now > since else 0.0
        fraction = eta = None
        if self.rows.fraction:
            total = max(self._read / self.rows.fraction, 1.0)
            fraction = min(1.0, finished / total)
            eta = (total - finished) / rate if rate else None
        completed = begin.tally.completed + traffic.completed
        failed = begin.tally.failed + traffic.failed
        counts = traffic.in_queue, traffic.in_progress, completed, failed
        return Progress(*counts, rate, fraction, eta)

    def _summary(self, code: int, cpu_seconds: float) -> dict[str, Any]:
        """For programs: of all sessions what is written, of this one how fast."""
        tally, traffic, options = self._tally, self.client.traffic, self.options
        seconds = max(time.monotonic() - self._started, 1e-9)
        written = tally.rows - self._begin.tally.rows
        counts = ("requests", "posts", "polls", "retries", "splits", "resubmitted")
        return {
            "texts": tally.rows,
            "completed": tally.completed,
            "failed": tally.failed,
            "labels": tally.labels,
            "failures": [{"row": row, "error": why} for row, why in tally.failures],
            "seconds": round(seconds, 3),
            "texts_per_second": round(written / seconds, 1),
            "cpu_seconds": round(cpu_seconds, 3),
            "latency_seconds": percentiles(traffic.latencies),
            **{name: getattr(traffic, name) for name in counts},
            "output": options.output and str(options.output),
            "state": options.state and str(options.state),
            "exit_code": code,
            "complete": self._complete,
        }

    def _report(self, code: int, problem: str, cpu_seconds: float) -> None:
        options, rows = self.options, self._tally.rows
        summary = self._summary(code, cpu_seconds)
        if options.json and options.output is not None:
            try:
                print(json.dumps(summary, indent=2), flush=True)
            except BrokenPipeError:
                _drop_output()
        elif options.json:
            say(json.dumps(summary, indent=2))
        elif not options.quiet and (not problem or rows):
            encoding = (sys.stderr.encoding or "").lower()
            say("\n".join(summary_lines(summary, "█" if encoding.startswith("utf") else "#")))
        if problem:
            say(f"async_requests: {problem}")
            if rows or self.client.traffic.posts > 1:
                say(_how_to_go_on(options, rows))
        if options.plot is not None:
            plot(options.plot, self.client.traffic.latencies, self._scores)


def _how_to_go_on(options: Options, written: int) -> str:
    if options.state is not None:
        return f"go on with: {shlex.join(['python', *sys.argv])}"
    where = f"in {options.output}.part" if options.output is not None else "written"
    return f"{written:,} rows are {where}; with --state FILE the same command could go on"


def _on_signals(handler: Callable[[], None]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, handler)
        except NotImplementedError:  # Windows
            signal.signal(number, lambda *_: loop.call_soon_threadsafe(handler))


async def execute(options: Options, *, transport: httpx.AsyncBaseTransport | None = None) -> int:
    """Run a command line; returns the exit code."""
    with contextlib.ExitStack() as stack:
        rows = Arguments(options.texts)
        if options.file is not None:
            rows = stack.enter_context(contextlib.closing(Source(options.file, options.input)))
        state = None
        if options.state is not None:
            state = StateFile(options.state, options.identity())
            stack.callback(state.close)
        done = Checkpoint() if state is None else state.checkpoint
        console = _console(options)
        if options.output is not None:
            output: Output = FileOutput(options.output, done)
        else:
            output = Output(console if console and console.file is sys.stdout else None)
        stack.callback(output.close)
        if output.begin.rows < done.rows:
            ids = options.state
            say(f"{options.output} is gone or changed: written again from the ids in {ids}")
        if state is not None:
            state.load(output.begin.rows)
        client = AsyncAPIClient(
            options.endpoint, options.policy,
            headers=options.header, transport=transport, verify=not options.insecure,
        )  # fmt: skip
        display = LiveDisplay(console) if console else PlainDisplay(quiet=options.quiet)
        return await Run(options, client, rows, output, state, display).execute()


def _console(options: Options) -> Console | None:
    """Where the live display is drawn; None if it cannot be, or nobody would see it."""
    if options.quiet or not sys.stderr.isatty() or importlib.util.find_spec("rich") is None:
        return None
    from rich.console import Console

    shared = options.output is None and sys.stdout.isatty()
    console = Console(file=sys.stdout if shared else sys.stderr)
    return None if console.is_dumb_terminal else console


# --- the command line -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Options:
    """A command line, understood; :func:`_parser` says what each option is."""

    input: InputOptions
    policy: Policy
    endpoint: str
    texts: Sequence[str] = ()
    file: str | None = None
    output: Path | None = None
    output_format: str = ""
    state: Path | None = None
    quiet: bool = False
    json: bool = False
    plot: Path | None = None
    header: Sequence[tuple[str, str]] = ()
    insecure: bool = False
    deadline: float | None = None
    wait_ready: float | None = None

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


def _drop_output() -> None:
    """Nobody reads standard output: what Python flushes at its end must go somewhere."""
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.close(nowhere)


def main(
    argv: Sequence[str] | None = None, *, transport: httpx.AsyncBaseTransport | None = None
) -> int:
    """Run the command line; returns the exit code."""
    parser = _parser()
    given = vars(parser.parse_args(argv))
    try:
        options = _options(given)
    except CannotRun as error:
        parser.error(str(error))
    if options.texts == SAMPLE_TEXTS:
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


def _options(given: dict[str, Any]) -> Options:
    """The options of a command line; what is not given is as the records say."""
    if given["texts"] and "file" in given:
        raise CannotRun("give texts or --file, not both")
    if given["texts"] == ["-"]:
        given |= {"texts": [], "file": "-"}
    elif "file" not in given:
        # A text of the command line has an id of its own; in a file, many share a request.
        given.setdefault("batch_size", 1)
        given["texts"] = given["texts"] or SAMPLE_TEXTS
    parse_endpoint(given["endpoint"])
    if "plot" in given and importlib.util.find_spec("matplotlib") is None:
        raise CannotRun("--plot needs matplotlib: pip install matplotlib")
    given.setdefault("output_format", _format_of_output(given.get("output")))
    return Options(input=_taken(InputOptions, given), policy=_taken(Policy, given), **given)


def _taken(kind: type[T], given: dict[str, Any]) -> T:
    """A record of what is ``given`` of its fields, and not any more."""
    names = [each.name for each in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: given.pop(name) for name in names if name in given})


def _format_of_output(output: Path | None) -> str:
    if output is None:
        return "jsonl"
    if output.suffix == ".gz":
        raise CannotRun("--output is not compressed: leave it out and pipe into gzip")
    found = FORMATS.get(output.suffix.lower(), "jsonl")
    return "jsonl" if found == "text" else found


def _parser() -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="async_requests.py",
        usage="%(prog)s [OPTION ...] [TEXT ... | - | --file FILE]",
        description=description,
        epilog=more.partition("\nThis one file")[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,  # the defaults are those of the records
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    policy = Policy()
    file: dict[str, Any] = {"metavar": "FILE", "type": Path}
    number: dict[str, Any] = {"metavar": "N", "type": functools.partial(_whole, 1)}
    seconds: dict[str, Any] = {"metavar": "SECONDS", "type": _seconds}

    # fmt: off
    add = parser.add_argument_group("input").add_argument
    add("texts", nargs="*", default=[], metavar="TEXT", help="to classify; - reads standard input")
    add("--file", help="to read, gzip or not; - is standard input")
    add("--format", choices=("text", "csv", "tsv", "jsonl"), help="of the input (by its name)")
    add("--column", metavar="NAME",
        help="of a CSV, where the texts are; a name or a number from 1")
    add("--field", metavar="NAME", help="of JSON Lines, where the texts are")
    add("--no-header-row", action="store_false", dest="header_row",
        help="the first row of the CSV is data")
    add("--delimiter", type=_character, help="of the CSV")
    add("--encoding", type=_encoding, help=f"of the input ({InputOptions().encoding})")

    add = parser.add_argument_group("output").add_argument
    add("--output", **file, help="to write; FILE.part until it is complete (standard output)")
    add("--output-format", choices=("jsonl", "csv", "tsv"), help="(by the name of the output)")
    add("--state", **file, help="keeps the ids, so that the run can go on")
    add("--quiet", action="store_true", help="no progress and no summary")
    add("--json", action="store_true",
        help="the summary as JSON, on standard output if that is free")
    add("--plot", **file, help="histograms as an image; needs matplotlib")

    add = parser.add_argument_group("service").add_argument
    endpoint = os.environ.get("SENTIMENT_ENDPOINT") or ENDPOINT
    add("--endpoint", default=endpoint, metavar="URL",
        help="of the API; SENTIMENT_ENDPOINT in the environment (%(default)s)")
    add("--header", action="append", type=_header, metavar="'NAME: VALUE'",
        help="for every request; can be given again")
    add("--insecure", action="store_true", help="do not check the certificate of an https endpoint")
    add("--batch-size", **number,
        help=f"texts in a request (of a file {policy.batch_size}, of arguments 1)")
    add("--window", **number,
        help=f"requests that are submitted and not finished, at most ({policy.window})")
    add("--concurrency", **number, help=f"connections at once ({policy.concurrency})")
    add("--timeout", **seconds,
        help=f"from the submission of a request to its result ({policy.timeout:g})")
    add("--deadline", **seconds, help="for the whole run")
    add("--wait-ready", **seconds, help="first wait until a sample text is answered")
    add("--retry-for", **seconds,
        help=f"without a good answer, until the gateway counts as gone ({policy.retry_for:g})")
    add("--retry-failed", type=functools.partial(_whole, 0), metavar="N",
        help=f"times that a request is submitted again after it failed ({policy.retry_failed})")
    # fmt: on
    return parser


def _whole(least: int, text: str) -> int:
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
        "".encode(text)  # of text, that is: lookup knows others
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
