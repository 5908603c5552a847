"""Contract, section 3: what the container's answers become."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Mapping
from typing import Any

import pytest

from .client import Api, Outcome, Submission, http_answer, raw_answer

OBJECT = b'{"ok":true}'
JSON = "application/json"
GZIP, DEFLATE = ("Content-Encoding: gzip",), ("Content-Encoding: deflate",)
BROWSER = (("Accept-Encoding", "gzip, deflate, br"),)

COMPLETED: dict[str, tuple[dict[str, Any], str]] = {
    "object": (http_answer(OBJECT), '{"ok":true}'),
    "charset": (http_answer(OBJECT, content_type=f"{JSON}; charset=utf-8"), '{"ok":true}'),
    "chunked": (http_answer(OBJECT, chunked=True), '{"ok":true}'),
    "json-seq": (http_answer(OBJECT, content_type=f"{JSON}-seq"), '{"ok":true}'),
    "empty object": (http_answer(b"{}"), "{}"),
    "null": (http_answer(b"null"), "null"),
    "garbage after": (http_answer(OBJECT + b" and {garbage"), '{"ok":true}'),
    "second value after": (http_answer(OBJECT + b'{"ok":false}'), '{"ok":true}'),
    "invalid UTF-8": (http_answer(b'{"a":"x\xff\xfey"}'), '{"a":"x\ufffd\ufffdy"}'),
    "gzip, none asked for": (http_answer(gzip.compress(OBJECT), headers=GZIP), '{"ok":true}'),
    "gzip, chunked": (
        http_answer(gzip.compress(OBJECT), headers=GZIP, chunked=True),
        '{"ok":true}',
    ),
    "no length": (
        raw_answer(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + OBJECT, "close"),
        '{"ok":true}',
    ),
}
"""Answer, and the result as the client reads it, byte for byte."""

RE_ENCODED = {
    "sorted keys": (
        '{"b":1,"a":{"d":1,"c":[{"z":1,"y":2}]}}',
        '{"a":{"c":[{"y":2,"z":1}],"d":1},"b":1}',
    ),
    "spaces": ('{ "a" : [ 1 , 2 ] }', '{"a":[1,2]}'),
    "whole floats": ('{"a":1.0,"b":0.0}', '{"a":1,"b":0}'),
    "trailing zero": ('{"a":2.50}', '{"a":2.5}'),
    "large integer": ('{"a":12345678901234567890}', '{"a":12345678901234567000}'),
    "integer of 2**53 + 1": ('{"a":9007199254740993}', '{"a":9007199254740992}'),
    "exponent": ('{"a":1e21}', '{"a":1e+21}'),
    "HTML": ('{"a":"<b>&"}', '{"a":"\\u003cb\\u003e\\u0026"}'),
    "escaped HTML": ('{"a":"\\u003cb\\u003E"}', '{"a":"\\u003cb\\u003e"}'),
    "HTML in a key": ('{"<":1}', '{"\\u003c":1}'),
    "line separator": ('{"a":"\u2028"}', '{"a":"\\u2028"}'),
    "non-ASCII": ('{"ä":"ü😀"}', '{"ä":"ü😀"}'),
    "escaped non-ASCII": ('{"a":"\\u00fc\\ud83d\\ude00"}', '{"a":"ü😀"}'),
    "duplicate keys": ('{"a":1,"b":2,"a":3}', '{"a":3,"b":2}'),
}
"""What the container answers, and how it comes back."""

DEDUCED = {
    "exponent below": ('{"a":1e20}', '{"a":100000000000000000000}'),
    "small": ('{"a":0.000001}', '{"a":0.000001}'),
    "smaller": ('{"a":0.0000001}', '{"a":1e-7}'),
    "paragraph separator": ('{"a":"\u2029"}', '{"a":"\\u2029"}'),
    "lone surrogate": ('{"a":"\\ud800"}', '{"a":"\ufffd"}'),
    "slash": ('{"a":"\\/"}', '{"a":"/"}'),
}

NOT_OBJECTS = {"array": b"[1, 2]", "string": b'"text"', "number": b"1.5"}

FAILED: dict[str, tuple[dict[str, Any], tuple[tuple[str, str], ...]]] = {
    **{
        f"type {content_type}": (http_answer(OBJECT, content_type=content_type), ())
        for content_type in ("text/plain", None, "application/problem+json", "Application/JSON")
    },
    **{
        f"body {body!r}": (http_answer(body), ())
        for body in (
            b"",
            b"<html></html>",
            b'{"a":NaN}',
            b'{"a":Infinity}',
            b'{"a":-Infinity}',
            b"\xef\xbb\xbf" + OBJECT,
        )
    },
    **{
        f"status {status}": (http_answer(OBJECT, status=status), ())
        for status in (
            "201 Created",
            "202 Accepted",
            "400 Bad Request",
            "404 Not Found",
            "422 Unprocessable Entity",
            "429 Too Many Requests",
            "500 Internal Server Error",
        )
    },
    "status 204": (raw_answer(b"HTTP/1.1 204 No Content\r\n\r\n"), ()),
    "status 503": (
        http_answer(OBJECT, status="503 Service Unavailable", headers=("Retry-After: 1",)),
        (),
    ),
    "status 307": (
        http_answer(OBJECT, status="307 Temporary Redirect", headers=("Location: /elsewhere",)),
        (),
    ),
    **{
        f"gzip, asked for {value}": (
            http_answer(gzip.compress(OBJECT), headers=GZIP),
            (("Accept-Encoding", value),),
        )
        for value in ("gzip", "gzip, deflate", "gzip, deflate, br", "identity")
    },
    "deflate": (http_answer(zlib.compress(OBJECT), headers=DEFLATE), ()),
    "deflate, asked for": (http_answer(zlib.compress(OBJECT), headers=DEFLATE), BROWSER),
}
"""Answer, and the client's headers."""

BIG = 6_000_000
LATE = 6  # seconds: longer than the usual time limits of HTTP clients
SUBMISSIONS = {
    **{f"completed: {name}": Submission({"steps": [row[0]]}) for name, row in COMPLETED.items()},
    **{
        f"re-encoded: {name}": Submission({"steps": [http_answer(row[0].encode())]})
        for name, row in (RE_ENCODED | DEDUCED).items()
    },
    **{
        f"not an object: {name}": Submission({"steps": [http_answer(body)]})
        for name, body in NOT_OBJECTS.items()
    },
    **{f"failed: {name}": Submission({"steps": [row[0]]}, row[1]) for name, row in FAILED.items()},
    "truncated UTF-8": Submission({"steps": [http_answer(b'{"a":"x\xe2\x82y"}')]}),
    "big": Submission({"steps": [{"pad": BIG}]}),
    "late": Submission({"steps": [{"delay": LATE}]}),
}


@pytest.fixture(scope="module")
def outcomes(api: Api) -> dict[str, Outcome]:
    """Of all submissions, sent at once."""
    return api.run_all(SUBMISSIONS)


def result_text(outcome: Outcome) -> str:
    """The result as it stands in the answer."""
    shape = (
        rf'\{{"id":"{re.escape(outcome.id)}","status":"completed","result":(.*),'
        r'"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"\}\n'
    )
    found = re.fullmatch(shape, outcome.answer.body.decode(), re.DOTALL)
    assert found, outcome.answer.body[:1000]
    return found[1]


@pytest.mark.parametrize("name", COMPLETED)
def test_completed(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, table, rows "completed".

    That the answer may go on until the connection ends ("no length") is HTTP/1.1, and not a row.
    """
    assert result_text(outcomes[f"completed: {name}"]) == COMPLETED[name][1]


@pytest.mark.parametrize("name", RE_ENCODED)
def test_re_encoded(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, "The result is re-encoded": as measured."""
    assert result_text(outcomes[f"re-encoded: {name}"]) == RE_ENCODED[name][1]


@pytest.mark.parametrize("name", DEDUCED)
def test_re_encoded_by_go(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, "The result is re-encoded": not measured, but what Go's encoding/json does."""
    assert result_text(outcomes[f"re-encoded: {name}"]) == DEDUCED[name][1]


def test_truncated_utf_8(outcomes: Mapping[str, Outcome]) -> None:
    r"""Section 3, table, invalid UTF-8: every byte becomes a U+FFFD.

    The row says "bytes replaced by U+FFFD". Go's decoder goes on by one byte after each that is
    wrong, so two bytes of a character that needs three become two; others make one of them.
    """
    assert result_text(outcomes["truncated UTF-8"]) == '{"a":"x\ufffd\ufffdy"}'


@pytest.mark.parametrize("name", NOT_OBJECTS)
def test_not_an_object(name: str, outcomes: Mapping[str, Outcome], api: Api) -> None:
    """Section 3, table, list, string and number: 500 with Go's text, on every GET."""
    outcome = outcomes[f"not an object: {name}"]

    for answer in (outcome.answer, api.get(outcome.id)):
        assert (answer.status, answer.header("content-type")) == (500, "text/plain")
        assert answer.body.decode() == (
            f"error: json: cannot unmarshal {name} into Go value of type map[string]interface {{}}"
        )


@pytest.mark.parametrize("name", FAILED)
def test_failed(name: str, outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, table, rows "failed": 200, and nothing but the id and the status."""
    outcome = outcomes[f"failed: {name}"]

    assert outcome.answer.status == 200
    assert outcome.answer.body.decode() == f'{{"id":"{outcome.id}","status":"failed"}}\n'


def test_big_result(outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, table, last row: 6 MB complete, and are answered chunked."""
    outcome = outcomes["big"]

    assert len(json.dumps(outcome.result, separators=(",", ":"))) == BIG
    assert outcome.answer.header("transfer-encoding") == "chunked"
    assert outcome.answer.header("content-length") is None


def test_late_answer(outcomes: Mapping[str, Outcome]) -> None:
    """Section 3, time: no timeout; 40 and 75 s were measured, see the next one."""
    outcome = outcomes["late"]

    assert outcome.status == "completed"
    assert outcome.seconds >= LATE


@pytest.mark.slow
def test_very_late_answer(api: Api, token: str) -> None:
    """Section 3, time: an answer after 40 s completes, and the container saw the request once."""
    outcome = api.run(Submission({"token": token, "steps": [{"delay": 40}]}), seconds=80)

    assert outcome.status == "completed"
    assert len(api.tell(token)["receipts"]) == 1


NO_RETRY = ["422 Unprocessable Entity", "429 Too Many Requests", "503 Service Unavailable"]


def test_no_retry(api: Api, token: str) -> None:
    """Section 3, table: after an answer that is no success, the container is not asked again."""
    requests = {
        status: Submission(
            {
                "token": f"{token}{status[:3]}",
                "steps": [
                    http_answer(OBJECT, status=status, headers=("Retry-After: 0",)),
                    http_answer(OBJECT),
                ],
            }
        )
        for status in NO_RETRY
    }

    outcomes = api.run_all(requests)

    for status in NO_RETRY:
        assert outcomes[status].status == "failed"
        assert len(api.tell(f"{token}{status[:3]}")["receipts"]) == 1


def redirect(token: str) -> dict[str, Any]:
    """302 to the same place."""
    location = f"Location: /elsewhere?x=1&token={token}"
    return http_answer(OBJECT, status="302 Found", headers=(location,))


def test_redirected_for_ever(api: Api, token: str) -> None:
    """Section 3, table, 302: Go follows it, and gives up after ten requests: failed."""
    outcome = api.run(Submission({"token": token, "steps": [redirect(token)]}))

    lines = [each.line for each in api.receipts(token)]
    assert outcome.status == "failed"
    assert lines == ["POST / HTTP/1.1"] + [f"GET /elsewhere?x=1&token={token} HTTP/1.1"] * 9


def test_redirected_to_success(api: Api, token: str) -> None:
    """Section 3, table, 302: a target that answers 200 with JSON counts (deduced, not measured)."""
    outcome = api.run(Submission({"token": token, "steps": [redirect(token), {}]}))

    assert outcome.received.line == f"GET /elsewhere?x=1&token={token} HTTP/1.1"
