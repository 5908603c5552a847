"""Contract, sections 1 and 4: routes, statuses, exact answers, CORS, limits."""

from __future__ import annotations

import datetime
import re
import uuid
from email.utils import parsedate_to_datetime

import pytest

from .client import Answer, Api, Headers, Outcome, Submission, http_answer, wait_until

ORIGIN = (("Origin", "http://example.com"),)
CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-credentials": "true",
    "access-control-expose-headers": "Content-Length,Content-Range",
}


@pytest.fixture(scope="module")
def completed(api: Api) -> Outcome:
    """A completed request."""
    return api.run(Submission({"steps": [http_answer(b'{"ok":true}')]}))


def assert_empty(answer: Answer, status: int) -> None:
    """Only the status."""
    assert (answer.status, answer.body) == (status, b"")


# Section 1: the path


@pytest.mark.parametrize("suffix", ["", "/", "?input_text=hi", "/?input_text=hi"])
def test_routes_in(suffix: str, api: Api) -> None:
    """Section 1: exactly the endpoint, or what is below it; the gateway ignores the query."""
    answer = api.post(Submission(suffix=suffix))

    assert answer.status == 200
    assert str(uuid.UUID(answer.json()["id"])) in answer.body.decode()


@pytest.mark.ingress
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("other", ["{}x", "{upper}", "/no-such-api", "/no-such-api{}", "/"])
def test_other_paths(method: str, other: str, api: Api) -> None:
    """Section 1: other paths, another case: 404 from Envoy itself, empty."""
    target = other.format(api.path, upper=api.path.upper())

    answer = api.exchange(method, target, body=b"" if method == "POST" else None)

    assert_empty(answer, 404)
    assert answer.header("server") == "istio-envoy"
    assert answer.header("x-envoy-upstream-service-time") is None


# Section 4: every answer


def answers(api: Api, completed: Outcome) -> dict[str, Answer]:
    """One of each kind from the gateway."""
    return {
        "POST": api.post(Submission()),
        "GET": api.get(completed.id),
        "unknown": api.get("unknown-id"),
        "405": api.exchange("GET", api.path),
        "no page": api.get("a/b"),
        "healthz": api.get("healthz"),
        "OPTIONS": api.exchange("OPTIONS", api.path),
    }


@pytest.mark.ingress
def test_headers_of_every_answer(api: Api, completed: Outcome) -> None:
    """Section 4, first paragraph: date, server, upstream time, names in lower case.

    Whether preflights are answered by Envoy or by the gateway is not said: OPTIONS without Origin
    is taken for the gateway's, like all but what the table calls Envoy's.
    """
    for kind, answer in answers(api, completed).items():
        names = [name for name, _ in answer.headers]
        assert names == [name.lower() for name in names], kind
        assert answer.header("server") == "istio-envoy", kind
        assert re.fullmatch(r"\d+", answer.header("x-envoy-upstream-service-time") or ""), kind
        assert re.fullmatch(
            r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", answer.header("date") or ""
        ), kind


def test_cors_headers(api: Api, completed: Outcome) -> None:
    """Section 4, first paragraph: with an Origin, on POST and GET answers, 404 too."""
    for answer in (
        api.post(Submission(headers=ORIGIN)),
        api.get(completed.id, ORIGIN),
        api.get("unknown-id", ORIGIN),
    ):
        assert {name: answer.header(name) for name in CORS} == CORS


def test_no_cors_headers_without_origin(api: Api, completed: Outcome) -> None:
    """Section 4, first paragraph: without an Origin, none of them."""
    for answer in answers(api, completed).values():
        assert [name for name, _ in answer.headers if "access-control" in name.lower()] == []


# Section 4: POST /<api>


def test_submitted(api: Api) -> None:
    """Section 4, POST: 200, the id on a line of its own."""
    answer = api.post(Submission())

    assert (answer.status, answer.reason) == (200, "OK")
    assert re.fullmatch(rb'\{"id":"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"\}\n', answer.body)
    assert answer.header("content-type") == "application/json"
    assert answer.header("content-length") == "46"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (None, None),
        (b"", "application/json"),
        (b"{not json", "application/json"),
        (b"\xff\xfe", "text/plain"),
        (b"<a/>", "nonsense"),
    ],
)
def test_nothing_is_validated(body: bytes | None, content_type: str | None, api: Api) -> None:
    """Section 4, POST: 200 whatever the body or content type."""
    headers: Headers = (("Content-Type", content_type),) if content_type else ()

    assert api.post(Submission(headers=headers, body=body)).status == 200


def test_readable_at_once(api: Api) -> None:
    """Section 4, GET: 60 immediate GETs, no 404."""
    statuses = [api.get(api.post(Submission()).json()["id"]).status for _ in range(60)]

    assert statuses == [200] * 60


# Section 4: GET /<api>/<id>


def test_completed_answer(api: Api, completed: Outcome) -> None:
    """Section 4, GET: one line and a newline, with the time of completion in UTC."""
    answer = api.get(completed.id)

    assert (answer.status, answer.header("content-type")) == (200, "application/json")
    timestamp = answer.json()["timestamp"]
    assert answer.body.decode() == (
        f'{{"id":"{completed.id}","status":"completed","result":{{"ok":true}},'
        f'"timestamp":"{timestamp}"}}\n'
    )
    ended = datetime.datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=datetime.UTC)
    now = parsedate_to_datetime(answer.header("date") or "")
    assert datetime.timedelta(seconds=-2) <= now - ended <= datetime.timedelta(minutes=5)


def test_query_of_a_poll_is_ignored(api: Api, completed: Outcome) -> None:
    """Section 4, GET: a query is ignored."""
    assert api.get(f"{completed.id}?x=1").body == api.get(completed.id).body


def test_unfinished_answers(api: Api) -> None:
    """Section 4, GET: in_queue, in_progress and failed are an id and a status."""
    busy = Submission({"steps": [{"barrier": api.max_concurrency, "delay": 1.5}]})
    last = Submission({"steps": [http_answer(b"", status="500 no")]})
    running = [api.post(busy).json()["id"] for _ in range(api.max_concurrency)]
    wait_until(lambda: all("in_progress" in api.get(each).body.decode() for each in running))

    outcome = Outcome(api.post(last))
    waiting = api.get(outcome.id)
    progressing = api.get(running[0])
    api.follow([outcome])

    for answer, name, status in (
        (waiting, outcome.id, "in_queue"),
        (progressing, running[0], "in_progress"),
        (outcome.answer, outcome.id, "failed"),
    ):
        assert (answer.status, answer.header("content-type")) == (200, "application/json")
        assert answer.body.decode() == f'{{"id":"{name}","status":"{status}"}}\n'


@pytest.mark.parametrize(
    "name", ["unknown-id", "docs", "openapi.json", "metrics", "healthcheck", str(uuid.UUID(int=0))]
)
def test_unknown_id(name: str, api: Api) -> None:
    """Section 4, GET: 404, text/plain, no newline; the container's own pages are such ids."""
    answer = api.get(name)

    assert (answer.status, answer.header("content-type")) == (404, "text/plain")
    assert answer.body.decode() == f"error: id {name} not found"


# Section 4: everything else


@pytest.mark.parametrize("suffix", ["", "/"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_wrong_method(method: str, suffix: str, api: Api) -> None:
    """Section 4, everything else, rows 1 and 2: 405, empty, no Allow.

    Row 2 can be read as below ``/<api>/<id>`` only; the gateway's router treats both alike.
    """
    answer = api.exchange(method, api.path + suffix)

    assert_empty(answer, 405)
    assert answer.header("allow") is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD"])
def test_wrong_method_on_an_id(method: str, api: Api, completed: Outcome) -> None:
    """Section 4, everything else, row 2: 405, empty."""
    answer = api.exchange(method, f"{api.path}/{completed.id}")

    assert_empty(answer, 405)
    assert answer.header("allow") is None


@pytest.mark.parametrize("shape", ["{}/", "{}/x", "a/b", "a%2Fb", "a%2fb"])
def test_no_such_page(shape: str, api: Api, completed: Outcome) -> None:
    """Section 4, everything else, row 3: ids with a slash, also an escaped one."""
    answer = api.get(shape.format(completed.id))

    assert (answer.status, answer.body) == (404, b"404 page not found\n")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert answer.header("x-content-type-options") == "nosniff"


def test_healthz(api: Api) -> None:
    """Section 4, everything else, row 4: the gateway's health."""
    answer = api.get("healthz")

    assert (answer.status, answer.body) == (200, b"ok")
    assert answer.header("content-type") == "text/plain"


def preflight(api: Api, headers: str, method: str = "POST") -> Answer:
    """What a browser asks before it sends a request with such headers."""
    asked: Headers = (
        *ORIGIN,
        ("Access-Control-Request-Method", method),
        ("Access-Control-Request-Headers", headers),
    )
    return api.exchange("OPTIONS", api.path, asked)


def test_preflight(api: Api) -> None:
    """Section 4, everything else, row 5."""
    answer = preflight(api, "content-type")

    assert_empty(answer, 200)
    assert answer.header("access-control-allow-origin") == "*"
    assert answer.header("access-control-allow-headers") == "Content-Type"
    assert answer.header("access-control-allow-credentials") == "true"


@pytest.mark.parametrize(
    "name",
    [
        "Content-Type",
        "X-Requested-With",
        "User-Agent",
        "Accept",
        "Accept-Language",
        "Content-Language",
        "Origin",
    ],
)
def test_preflight_allowed(name: str, api: Api) -> None:
    """Section 4, everything else, row 6: the headers that may be asked for."""
    assert_empty(preflight(api, name.lower()), 200)


@pytest.mark.parametrize("names", ["authorization", "x-api-key", "content-type, authorization"])
def test_preflight_refused(names: str, api: Api) -> None:
    """Section 4, everything else, row 6: any other, 403, empty."""
    assert_empty(preflight(api, names), 403)


def test_options_without_origin(api: Api) -> None:
    """Section 4, everything else, row 7."""
    assert_empty(api.exchange("OPTIONS", api.path), 200)


@pytest.mark.ingress
@pytest.mark.parametrize("where", ["query", "header", "many headers"])
def test_headers_too_large(where: str, api: Api, token: str) -> None:
    """Sections 2 and 4: over 60 KiB of them, 431 from Envoy, and the container gets nothing."""
    size = 62 * 1024
    headers: Headers = ()
    if where == "header":
        headers = (("X-Large", "x" * size),)
    elif where == "many headers":
        headers = tuple((f"X-Large-{n}", "x" * (size // 20)) for n in range(20))
    suffix = f"?input_text={'x' * size}" if where == "query" else ""

    answer = api.post(Submission({"token": token}, headers, suffix=suffix))

    assert (answer.status, answer.reason) == (431, "Request Header Fields Too Large")
    assert answer.header("content-type") == "text/plain"
    assert answer.header("connection") == "close"
    assert answer.header("x-envoy-upstream-service-time") is None
    assert api.receipts(token) == []


@pytest.mark.ingress
def test_headers_below_the_limit(api: Api) -> None:
    """Sections 2 and 4: 55 KiB in a header are none too many, in a poll neither."""
    large: Headers = (("X-Large", "x" * 55 * 1024),)

    assert api.post(Submission(headers=large)).status == 200
    assert api.get("healthz", large).status == 200
