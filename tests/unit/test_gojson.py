"""JSON as Go 1.17 reads and writes it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.asyncapi import gojson

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def through_go(body: bytes) -> bytes:
    """What becomes of a result."""
    return gojson.encode(gojson.decode(body))


@pytest.mark.parametrize(
    ("body", "result"),
    [
        (b'{"b":1.0,"a":2.50}', b'{"a":2.5,"b":1}'),
        (b' \t\r\n{ "a" : [ 1 , true , false , null ] }', b'{"a":[1,true,false,null]}'),
        (b"12345678901234567890", b"12345678901234567000"),
        (b"9007199254740993", b"9007199254740992"),
        (b"1e20", b"100000000000000000000"),
        (b"1e21", b"1e+21"),
        (b"1.5e300", b"1.5e+300"),
        (b"1E+2", b"100"),
        (b"1e-6", b"0.000001"),
        (b"-1.25e-5", b"-0.0000125"),
        (b"1e-7", b"1e-7"),
        (b"-1.5e-10", b"-1.5e-10"),
        (b"1e-400", b"0"),
        (b"0.0", b"0"),
        (b"-0.0", b"-0"),
        (b"-0", b"-0"),
        (b"-0.05", b"-0.05"),
        (b'"<>&"', rb'"\u003c\u003e\u0026"'),
        (b'"\xe2\x80\xa8\xe2\x80\xa9"', rb'"\u2028\u2029"'),
        (rb'"\b\f\n\r\t\u0001"', rb'"\u0008\u000c\n\r\t\u0001"'),
        (rb'"\\b \\\f"', rb'"\\b \\\u000c"'),
        (rb'"\/ \" \u00fc"', '"/ \\" ü"'.encode()),
        (rb'"\ud83d\ude00"', '"😀"'.encode()),
        (rb'"\ud800 \udc00x"', '"\ufffd \ufffdx"'.encode()),
        (b'"\xff\xfe"', '"\ufffd\ufffd"'.encode()),
        (b'"\xe2\x80"', '"\ufffd\ufffd"'.encode()),
        (b'"\xed\xa0\x80"', '"\ufffd\ufffd\ufffd"'.encode()),
        (b'"1e-05 -0.0"', b'"1e-05 -0.0"'),
        (rb'{"\"-0.0":1e-05}', rb'{"\"-0.0":0.00001}'),
        (b'{"a":1,"b":2,"a":3}', b'{"a":3,"b":2}'),
        (rb'{"\ud800":1,"\ud801":2}', '{"\ufffd":2}'.encode()),
        ('{"\uffff":1,"😀":2,"Z":3,"a":4}'.encode(), '{"Z":3,"a":4,"\uffff":1,"😀":2}'.encode()),
        (b'{"a":1} garbage', b'{"a":1}'),
        (b'{"a":1}{"a":2}', b'{"a":1}'),
        (b"1 2", b"1"),
    ],
)
def test_as_go(body: bytes, result: bytes) -> None:
    """Each pair is what Go writes after it has read the body."""
    assert through_go(body) == result


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" \n",
        b"\xef\xbb\xbf{}",
        b"\xc2\xa0{}",
        b"NaN",
        b'{"a":Infinity}',
        b"[-Infinity]",
        b"1e400",
        b"-1e400",
        b"1" + b"0" * 400,
        b"<html>",
        b"{",
        b"[1,]",
        b"{'a':1}",
        b'"\n"',
        b'"\\x"',
        b'"open',
        b"[" * 100_000,
    ],
)
def test_not_json(body: bytes) -> None:
    """What Go refuses is refused, by the one error that callers expect."""
    with pytest.raises(ValueError):  # noqa: PT011  (its words are Python's)
        gojson.decode(body)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{}", "object"),
        (b"[]", "array"),
        (b'""', "string"),
        (b"null", "null"),
        (b"true", "bool"),
        (b"false", "bool"),
        (b"-0.0", "number"),
        (b"7", "number"),
    ],
)
def test_kind(body: bytes, kind: str) -> None:
    """Go's names, which stand in the gateway's error."""
    assert gojson.kind(through_go(body)) == kind


@given(JSON)
def test_stable(value: object) -> None:
    """What was written is read and written again without a change, as Cortex does it twice."""
    once = through_go(json.dumps(value).encode())

    assert through_go(once) == once


@given(JSON)
def test_same_value(value: object) -> None:
    """Another reader finds the value, its numbers as float64."""
    body = json.dumps(value, ensure_ascii=False).encode()

    assert json.loads(through_go(body), parse_int=float) == json.loads(body, parse_int=float)
