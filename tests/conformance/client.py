"""The suite's side of the wire: exact requests, unaltered answers, and the only polling loop."""

from __future__ import annotations

import base64
import http.client
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

DEADLINE = 30.0  # seconds: far more than a request takes, idle pickup on a cluster included

Headers = tuple[tuple[str, str | bytes], ...]
T = TypeVar("T")


def wait_until(check: Callable[[], T | None], *, seconds: float = DEADLINE) -> T:
    """Call ``check`` until it returns something true; the only place where the suite sleeps."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds} s: {check}")
        time.sleep(0.02)


def pause(seconds: float) -> None:
    """Let time pass: for idle connections and for what must not happen."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, seconds=seconds + DEADLINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer; header names as on the wire, repeated ones too."""

    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The values of a header, joined by commas; None if it is absent."""
        values = [value for key, value in self.headers if key.lower() == name.lower()]
        return ",".join(values) if values else None

    def json(self) -> Any:  # noqa: ANN401  (any JSON value)
        """The body, decoded."""
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Submission:
    """A request to the API.

    Attributes:
        script: for the container, see :mod:`container`; None: it answers with what it got.
        body: None sends neither body nor Content-Length.
        suffix: follows the API's path, as it is: a slash, a query.
        chunked: send the body chunked, without Content-Length.
    """

    script: Mapping[str, Any] | None = None
    headers: Headers = ()
    body: bytes | None = b"{}"
    suffix: str = ""
    chunked: bool = False


@dataclass(frozen=True, slots=True)
class Received:
    """A request as the container got it.

    Attributes:
        line: the request line.
        headers: names and values as on the wire, in its order.
        body: without its framing.
        told: all that the container says of it.
    """

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    told: Mapping[str, Any]

    @classmethod
    def parse(cls, raw: bytes, told: Mapping[str, Any] | None = None) -> Received:
        """From the raw bytes; the body is cut off where they are."""
        head, _, rest = raw.partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        headers = tuple(
            (name, value) for name, _, value in (each.partition(": ") for each in fields)
        )
        request = cls(line, headers, rest, told or {})
        chunked = request.values("Transfer-Encoding") == ["chunked"]
        return replace(request, body=_dechunk(rest)) if chunked else request

    def values(self, name: str) -> list[str]:
        """The values of a header, however its name is written."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def names(self) -> list[str]:
        """The header names in lower case."""
        return [name.lower() for name, _ in self.headers]


def _dechunk(raw: bytes) -> bytes:
    body = b""
    while raw:
        size, _, raw = raw.partition(b"\r\n")
        body += raw[: int(size, 16)]
        raw = raw[int(size, 16) + 2 :]
    return body


@dataclass(slots=True)
class Outcome:
    """What became of a submission.

    Attributes:
        posted: the answer to it.
        final: the last answer to a GET of its id.
        seconds: from the POST to ``final``.
    """

    posted: Answer
    final: Answer | None = None
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """Of the request."""
        assert self.posted.status == 200, self.posted
        request_id: str = self.posted.json()["id"]
        return request_id

    @property
    def answer(self) -> Answer:
        """The last answer to a GET."""
        assert self.final is not None, f"{self.posted.status}: never asked for"
        return self.final

    @property
    def status(self) -> str:
        """As the client reads it."""
        assert self.answer.status == 200, self.answer
        status: str = self.answer.json()["status"]
        return status

    @property
    def result(self) -> Any:  # noqa: ANN401  (any JSON value)
        """Of a completed request."""
        assert self.status == "completed", self.answer
        return self.answer.json()["result"]

    @property
    def received(self) -> Received:
        """What the container got, if it was not scripted."""
        told = self.result
        return Received.parse(base64.b64decode(told["raw"]), told)

    @property
    def ended(self) -> bool:
        """Whether nothing more is going to happen."""
        return self.final is not None and not (
            self.final.status == 200
            and self.final.json().get("status") in {"in_queue", "in_progress"}
        )


@dataclass(frozen=True, slots=True)
class Api:
    """The API under test.

    Attributes:
        url: without a slash at its end.
        max_concurrency: of its pod.
    """

    url: str
    max_concurrency: int

    @property
    def address(self) -> SplitResult:
        """The parts of the URL."""
        return urlsplit(self.url)

    @property
    def path(self) -> str:
        """Below which it answers."""
        return self.address.path

    def connect(self) -> http.client.HTTPConnection:
        """A connection to its host."""
        if self.address.scheme == "https":
            return http.client.HTTPSConnection(self.address.netloc, timeout=DEADLINE)
        return http.client.HTTPConnection(self.address.netloc, timeout=DEADLINE)

    def exchange(
        self,
        method: str,
        target: str,
        headers: Headers = (),
        body: bytes | None = None,
        *,
        chunked: bool = False,
    ) -> Answer:
        """Send exactly this, on a new connection; a Host and the framing are added."""
        connection = self.connect()
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            connection.putheader("Host", self.address.netloc)
            for name, value in headers:
                connection.putheader(name, value)
            if chunked:
                connection.putheader("Transfer-Encoding", "chunked")
            elif body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders([body or b""] if chunked else body, encode_chunked=chunked)
            response = connection.getresponse()
            answered = response.read()
            return Answer(
                response.status, response.reason, tuple(response.headers.items()), answered
            )
        finally:
            connection.close()

    def post(self, submission: Submission) -> Answer:
        """Submit a request."""
        headers = submission.headers
        if submission.script is not None:
            headers = (*headers, ("X-Script", json.dumps(submission.script)))
        target = self.path + submission.suffix
        return self.exchange("POST", target, headers, submission.body, chunked=submission.chunked)

    def get(self, request_id: str, headers: Headers = ()) -> Answer:
        """What is known of a request; or any other GET below the API's path."""
        return self.exchange("GET", f"{self.path}/{request_id}", headers)

    def follow(self, outcomes: Iterable[Outcome], *, seconds: float = DEADLINE) -> None:
        """Poll until all have ended, or ``seconds`` are over: what they are then is for tests."""
        open_ones = [each for each in outcomes if each.posted.status == 200]
        deadline = time.monotonic() + seconds

        def ended() -> bool:
            for each in open_ones:
                each.final = self.get(each.id)
                each.seconds = time.monotonic() - each.began
            open_ones[:] = [each for each in open_ones if not each.ended]
            return not open_ones or time.monotonic() > deadline

        wait_until(ended, seconds=seconds + DEADLINE)

    def run_all(
        self, submissions: Mapping[str, Submission], *, seconds: float = DEADLINE
    ) -> dict[str, Outcome]:
        """Submit all, then wait for all: what a cluster makes one wait for is waited for once."""
        outcomes = {name: Outcome(self.post(each)) for name, each in submissions.items()}
        self.follow(outcomes.values(), seconds=seconds)
        return outcomes

    def run(self, submission: Submission, *, seconds: float = DEADLINE) -> Outcome:
        """Submit one and wait for its end."""
        return self.run_all({"": submission}, seconds=seconds)[""]

    def tell(self, token: str = "") -> dict[str, Any]:
        """What the container remembers: the receipts of a token, and the probes."""
        told: dict[str, Any] = self.run(Submission({"steps": [{"tell": token}]})).result
        return told

    def receipts(self, token: str) -> list[Received]:
        """The requests that the container got with this token."""
        told = self.tell(token)["receipts"]
        return [Received.parse(base64.b64decode(each["raw"]), each) for each in told]


def http_answer(
    body: bytes,
    *,
    status: str = "200 OK",
    content_type: str | None = "application/json",
    headers: tuple[str, ...] = (),
    chunked: bool = False,
) -> dict[str, Any]:
    """A step that answers exactly so."""
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
    lines = [f"HTTP/1.1 {status}", *headers, framing]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if chunked:
        halves = [each for each in (body[: len(body) // 2], body[len(body) // 2 :]) if each]
        body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in halves) + b"0\r\n\r\n"
    return raw_answer("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def raw_answer(raw: bytes, then: str | None = None) -> dict[str, Any]:
    """A step that answers these bytes, and then ends the connection if told to."""
    return {"raw": base64.b64encode(raw).decode()} | ({"then": then} if then else {})
