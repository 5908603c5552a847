"""Every form in which a text arrives, good and bad, from a direct caller and from the queue."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from project.app import create_app
from project.problems import Kind, Problem
from project.settings import Settings
from tests.helpers import ROOT, FakeClassifier, serve, wait_until

FORM = "application/x-www-form-urlencoded"
LIMIT = 2000
DIRECT: dict[str, str] = {}
QUEUE = {"X-Cortex-Request-ID": "a/b \u00e4"}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A container with small limits."""
    settings = Settings(max_texts=3, max_body_bytes=LIMIT, max_text_chars=100)
    with serve(create_app(settings, lambda _: FakeClassifier())) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").status_code == 200)
        yield url


class Request:
    """What is sent: a query, fields and a body."""

    def __init__(
        self, content: bytes | Sequence[bytes] = b"", content_type: str = "", query: str = "",
        **headers: str,
    ) -> None:  # fmt: skip
        self.content = content
        self.query = query
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if content_type:
            self.headers["Content-Type"] = content_type

    def send(self, url: str, caller: dict[str, str]) -> httpx.Response:
        """As it is: a sequence in chunks."""
        content = self.content if isinstance(self.content, bytes) else iter(self.content)
        with httpx.Client() as client:
            request = client.build_request("POST", f"{url}/{self.query}", content=content)
            for name, value in {**self.headers, **caller}.items():
                request.headers[name] = value
            return client.send(request)


def multipart(texts: Sequence[str]) -> Request:
    """A part for each text."""
    parts = [f'--b\r\nContent-Disposition: form-data; name="input_text"\r\n\r\n{text}\r\n'
             for text in texts]  # fmt: skip
    return Request(("".join(parts) + "--b--\r\n").encode(), "multipart/form-data; boundary=b")


def in_form(form: str, texts: Sequence[str]) -> Request:
    """``texts`` in one of the forms; one text is sent alone, not as a list."""
    body = json.dumps({"input_text": texts if len(texts) > 1 else texts[0]}).encode()
    pairs = urlencode([("input_text", text) for text in texts])
    requests = {
        "json": Request(body, "application/json"),
        "json that curl calls a form": Request(body, FORM),
        "json without a type": Request(body),
        "json in chunks": Request([body[:9], body[9:]], "application/json"),
        "json in gzip": Request(gzip.compress(body), "application/json", Content_Encoding="gzip"),
        "form": Request(pairs.encode(), FORM),
        "multipart": multipart(texts),
        "query": Request(b"", FORM, query="?" + pairs),
        "original path": Request(X_Envoy_Original_Path="/sentiment?" + pairs),
        "text": Request(texts[0].encode(), "text/plain; charset=utf-8"),
    }
    return requests[form]


FORMS = [
    "json", "json that curl calls a form", "json without a type", "json in chunks", "json in gzip",
    "form", "multipart", "query", "original path", "text",
]  # fmt: skip
callers = pytest.mark.parametrize("caller", [DIRECT, QUEUE], ids=["direct", "queue"])


def check_refusal(response: httpx.Response, caller: dict[str, str], problem: Problem) -> None:
    """Status, type and body are exactly those of ``problem``, for the caller that it is."""
    if caller is QUEUE:
        assert (response.status_code, response.json()) == (200, {"error": problem.members()})
        assert response.headers["content-type"] == "application/json"
    else:
        assert (response.status_code, response.json()) == (problem.kind.status, problem.members())
        assert response.headers["content-type"] == "application/problem+json"
    assert "content-encoding" not in response.headers


@callers
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("text", ["i like you", "a", "a\0b", "\u00fc & +%\U0001f600", "x" * 100])
def test_good_text(url: str, form: str, caller: dict[str, str], text: str) -> None:
    """The same answer in every form, to every caller."""
    response = in_form(form, [text]).send(url, caller)

    score = min(1.0, len(text) / 100)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {
        "label": "POSITIVE",
        "score": score,
        "scores": {"POSITIVE": score, "NEGATIVE": 1 - score},
        "tokens": len(text),
        "windows": 1,
        "truncated": False,
        "model": "fake",
        "revision": "0123456789ab",
        "backend": "fake",
    }


@callers
@pytest.mark.parametrize("form", FORMS[:-1])
def test_good_list(url: str, form: str, caller: dict[str, str]) -> None:
    """In every form that can hold several texts; a bad one has its error, the others are read."""
    response = in_form(form, ["a", " ", "x" * 101][:3]).send(url, caller)

    empty = Problem(Kind.EMPTY_TEXT, "input_text[1] is empty", field="input_text[1]")
    detail = "input_text[2] has 101 characters, at most 100 are taken"
    long = Problem(Kind.TEXT_TOO_LONG, detail, field="input_text[2]", limit=100)
    assert response.status_code == 200
    first, *others = response.json()["predictions"]
    assert (first["label"], first["score"]) == ("POSITIVE", 0.01)
    assert others == [{"error": empty.members()}, {"error": long.members()}]


BAD_TEXTS: dict[str, tuple[list[str], Problem]] = {
    "empty": ([""], Problem(Kind.EMPTY_TEXT, "input_text is empty", field="input_text")),
    "blank": ([" \0\n"], Problem(Kind.EMPTY_TEXT, "input_text is empty", field="input_text")),
    "too long": (
        ["x" * 101],
        Problem(
            Kind.TEXT_TOO_LONG,
            "input_text has 101 characters, at most 100 are taken",
            field="input_text",
            limit=100,
        ),
    ),
    "too many": (
        ["a", "b", "c", "d"],
        Problem(
            Kind.TOO_MANY_TEXTS,
            "input_text holds 4 texts, at most 3 are taken",
            field="input_text",
            limit=3,
        ),
    ),
}


@callers
@pytest.mark.parametrize("case", BAD_TEXTS)
@pytest.mark.parametrize("form", FORMS)
def test_bad_text(url: str, form: str, caller: dict[str, str], case: str) -> None:
    """The same problem in every form; to the queue it is a result."""
    texts, problem = BAD_TEXTS[case]
    if form == "text" and case == "empty":  # there is no body then
        detail = "input_text is missing in the body and the query"
        problem = Problem(Kind.MISSING_TEXT, detail, field="input_text")
    if form == "text" and case == "too many":
        pytest.skip("plain text is one text")

    check_refusal(in_form(form, texts).send(url, caller), caller, problem)


JSON = "application/json"
HUGE = b'"' + b"x" * LIMIT + b'"'
TOO_LARGE = Problem(
    Kind.BODY_TOO_LARGE, f"body is longer than {LIMIT} bytes", field="body", limit=LIMIT
)
TOO_LARGE_INFLATED = Problem(
    Kind.BODY_TOO_LARGE, f"body is longer than {LIMIT} bytes inflated", field="body", limit=LIMIT
)


def malformed(what: str) -> Problem:
    """The problem of a body that cannot be parsed."""
    return Problem(Kind.MALFORMED_BODY, f"body {what}", field="body")


def invalid(detail: str, field: str = "input_text") -> Problem:
    """The problem of a text that is none."""
    return Problem(Kind.INVALID_TEXT, detail, field=field)


def unsupported(detail: str, field: str) -> Problem:
    """The problem of a body that is in no form that is read."""
    return Problem(Kind.UNSUPPORTED_MEDIA_TYPE, detail, field=field)


NO_CHARACTER = "input_text has bytes or surrogates that are no part of a character"
READ = "application/json, application/x-www-form-urlencoded, multipart/form-data and text/plain are"
BAD_REQUESTS: dict[str, tuple[Request, Problem]] = {
    "nothing": (
        Request(),
        Problem(
            Kind.MISSING_TEXT, "input_text is missing in the body and the query", field="input_text"
        ),
    ),
    "wrong type": (
        Request(b'{"input_text": 3}', JSON),
        invalid("input_text must be a string or a list, not a number"),
    ),
    "no object": (
        Request(b"true", JSON),
        invalid(
            "body must be a JSON object, a string or a list of strings, not a boolean", "body"
        ),
    ),
    "bad JSON": (
        Request(b'{"input_text": "a"', JSON),
        malformed("is not JSON: Expecting ',' delimiter: line 1 column 19 (char 18)"),
    ),
    "bad JSON that curl calls a form": (
        Request(b"{", FORM),
        malformed(
            "is not JSON: Expecting property name enclosed in double quotes:"
            " line 1 column 2 (char 1)"
        ),
    ),
    "NaN": (
        Request(b'{"input_text": NaN}', JSON), malformed("is not JSON: NaN is no number of JSON's")
    ),
    "bad encoding in JSON": (
        Request(b'{"input_text": "\xff"}', JSON), malformed("is not UTF-8 at byte 16")
    ),
    "bad encoding in a form": (Request(b"input_text=%ff", FORM), invalid(NO_CHARACTER)),
    "bad encoding in a query": (Request(query="?input_text=%ff"), invalid(NO_CHARACTER)),
    "bad encoding in the original path": (
        Request(X_Envoy_Original_Path="/?input_text=%ff"), invalid(NO_CHARACTER)
    ),
    "bad encoding in a text": (
        Request(b"a\xff", "text/plain"), malformed("is not UTF-8 at byte 1")
    ),
    "another charset": (
        Request(b"a", "text/plain; charset=latin-1"),
        unsupported("charset 'latin-1' is not read; send UTF-8", "Content-Type"),
    ),
    "lone surrogate": (Request(b'"\\ud800"', JSON), invalid(NO_CHARACTER)),
    "huge": (Request(HUGE, JSON), TOO_LARGE),
    "huge in chunks": (Request([HUGE[:1000], HUGE[1000:]], JSON), TOO_LARGE),
    "gzip bomb": (
        Request(gzip.compress(b"a" * 10**6), JSON, Content_Encoding="gzip"), TOO_LARGE_INFLATED
    ),
    "no gzip": (
        Request(b'"a"', JSON, Content_Encoding="gzip"),
        malformed("is not gzip: Error -3 while decompressing data: incorrect header check"),
    ),
    "half a gzip": (
        Request(gzip.compress(b'"a"')[:-4], JSON, Content_Encoding="gzip"),
        malformed("ends before its gzip data"),
    ),
    "brotli": (
        Request(b"a", JSON, Content_Encoding="br"),
        unsupported("Content-Encoding 'br' is not read; send gzip or none", "Content-Encoding"),
    ),
    "xml": (
        Request(b"<a/>", "application/xml"),
        unsupported(
            f"Content-Type 'application/xml' is not read, unless it is JSON or a form; {READ}",
            "Content-Type",
        ),
    ),
    "text without a type": (
        Request(b"i like you"),
        unsupported(
            f"a body without a Content-Type is not read, unless it is JSON or a form; {READ}",
            "Content-Type",
        ),
    ),
    "no boundary": (
        Request(b"a", "multipart/form-data"),
        malformed("is not multipart/form-data: No boundary given"),
    ),
    "unknown policy": (
        Request(b'"a"', JSON, query="?on_long=cut"),
        Problem(
            Kind.INVALID_OPTION, "on_long must be one of window, truncate, reject", field="on_long"
        ),
    ),
}  # fmt: skip


@callers
@pytest.mark.parametrize("case", BAD_REQUESTS)
def test_bad_request(url: str, caller: dict[str, str], case: str) -> None:
    """Exact status and body; to the queue it is a result."""
    request, problem = BAD_REQUESTS[case]

    check_refusal(request.send(url, caller), caller, problem)


@callers
def test_deep_json(url: str, caller: dict[str, str]) -> None:
    """A nest that would exhaust the stack is a malformed body, and nothing dies of it."""
    settings = Settings(max_body_bytes=10**6)
    with serve(create_app(settings, lambda _: FakeClassifier())) as large:
        wait_until(lambda: httpx.get(f"{large}/healthcheck").status_code == 200)
        response = Request(b"[" * 10**5, JSON).send(large, caller)
        after = Request(b'"a"', JSON).send(large, caller)

    problem = response.json().get("error", response.json())
    assert (response.status_code, problem["status"]) == (200 if caller is QUEUE else 422, 422)
    assert problem["detail"].startswith("body is not JSON: maximum recursion depth exceeded")
    assert after.status_code == 200


def test_headers_of_refusals(url: str) -> None:
    """What could be read instead is said where HTTP has a field for it."""
    refused = Request(b"a", JSON, Content_Encoding="br").send(url, DIRECT)

    assert refused.headers["accept-encoding"] == "gzip, identity"


def test_errors_may_stay_errors() -> None:
    """ERRORS_AS_RESULTS=false: the queue gets the status, too."""
    settings = Settings(errors_as_results=False)
    with serve(create_app(settings, lambda _: FakeClassifier())) as url:
        wait_until(lambda: httpx.get(f"{url}/healthcheck").status_code == 200)
        response = Request(b"{}", JSON).send(url, QUEUE)

    assert (response.status_code, response.json()["status"]) == (422, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_ids_come_back(url: str) -> None:
    """Each with its own text, with a prediction or an error."""
    texts = [{"text": "a", "id": "x"}, {"text": "", "id": "y"}, "b", {"text": "c", "id": 1}, {}]

    answer = httpx.post(url, json={"input_text": texts[:3], "id": "all", "top_k": 1}).json()
    others = httpx.post(url, json=texts[3:]).json()["predictions"]
    alone = httpx.post(f"{url}/?id=z", json="a").json()

    first, second, third = answer["predictions"]
    assert (answer["id"], alone["id"]) == ("all", "z")
    assert (first["id"], first["scores"]) == ("x", {"NEGATIVE": 0.99})
    assert (second["id"], second["error"]["field"]) == ("y", "input_text[1].text")
    assert "id" not in third
    assert [each["error"]["field"] for each in others] == ["input_text[0].id", "input_text[1].text"]


CAPTURED = sorted((ROOT / "tests/conformance/captured").glob("*.txt"))
WITHOUT_TEXT = {"11-headers.txt"}
CUT_OFF = {"13-big-expect.head.txt"}


def replay(url: str, raw: bytes) -> tuple[bytes, dict[str, Any]]:
    """These bytes on a connection of their own; the head and the JSON of the answer."""
    address = httpx.URL(url)
    with socket.create_connection((address.host, address.port or 80)) as connection:
        connection.sendall(raw)
        with connection.makefile("rb") as stream:
            head = b"".join(iter(stream.readline, b"\r\n"))
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            return head, json.loads(stream.read(length))


@pytest.mark.parametrize("path", CAPTURED, ids=lambda path: path.stem)
def test_captured_requests(url: str, path: Path) -> None:
    """What Cortex's own dequeuer sent, byte for byte, is answered 200 with a JSON object."""
    if path.name in CUT_OFF:
        pytest.skip("the capture has the beginning of a body of 4 MB")

    head, answer = replay(url, path.read_bytes())

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"content-type: application/json\r\n" in head
    if path.name in WITHOUT_TEXT:
        assert answer["error"]["detail"] == "input_text is missing in the body and the query"
    else:
        assert answer["label"] == "POSITIVE"
