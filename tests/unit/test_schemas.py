"""Reading the texts out of a request."""

from __future__ import annotations

import pytest

from project.schemas import Limits, RequestError, Texts, read_texts

LIMITS = Limits(body_bytes=1000, texts=3, text_chars=10)


def read(body: bytes = b"", query: str = "", original_path: str = "") -> Texts:
    """``read_texts`` with this file's limits."""
    return read_texts(body, query, original_path, LIMITS)


@pytest.mark.parametrize(
    ("body", "query", "original_path", "expected"),
    [
        (b'{"input_text": "a b"}', "", "", Texts(("a b",), single=True)),
        (b'{"input_text": ["a", "b"]}', "", "", Texts(("a", "b"), single=False)),
        (b'{"input_text": ["a"]}', "", "", Texts(("a",), single=False)),
        (b'["a", "b"]', "", "", Texts(("a", "b"), single=False)),
        (b'"a"', "", "", Texts(("a",), single=True)),
        ('{"input_text": "ü😀"}'.encode(), "", "", Texts(("ü😀",), single=True)),
        (b"input_text=a+%26+b", "", "", Texts(("a & b",), single=True)),
        (b"", "input_text=a%20b", "", Texts(("a b",), single=True)),
        (b" \n", "input_text=a", "", Texts(("a",), single=True)),
        (b"", "input_text=a&input_text=b", "", Texts(("a", "b"), single=False)),
        (b"", "", "/sentiment?input_text=a%2Bb+c", Texts(("a+b c",), single=True)),
        (b"", "x=1", "/sentiment/?input_text=a", Texts(("a",), single=True)),
        (b'{"input_text": "a"}', "input_text=b", "/?input_text=c", Texts(("a",), single=True)),
        (b"", "input_text=b", "/?input_text=c", Texts(("b",), single=True)),
        (b"", "", "//[?input_text=a", Texts(("a",), single=True)),
    ],
)
def test_finds_texts(body: bytes, query: str, original_path: str, expected: Texts) -> None:
    """The body wins over the query, the query over the one that Envoy left in a header."""
    assert read(body, query, original_path) == expected


@pytest.mark.parametrize(
    ("body", "query", "field", "message"),
    [
        (b"", "", "input_text", "is missing"),
        (b"", "input_text=", "input_text[0]", "is empty"),
        (b"", "input_text=%ff", "input_text", "is not percent-encoded UTF-8"),
        (b"{", "", "body", "is not JSON"),
        (b"[" * 100_000, "", "body", "is not JSON"),
        (b"\xff\xfe\xfd", "", "body", "is not JSON"),
        (b"{}", "", "input_text", "is missing in the JSON body"),
        (b"3", "", "input_text", "must be a string or a list of strings, not int"),
        (b'{"input_text": null}', "", "input_text", "not NoneType"),
        (b"[]", "", "input_text", "must hold at least one text"),
        (b'["a", "b", "c", "d"]', "", "input_text", "holds 4 texts, at most 3 are taken"),
        (b'["a", 1]', "", "input_text[1]", "must be a string, not int"),
        (b'["a", " "]', "", "input_text[1]", "is empty"),
        (b'"12345678901"', "", "input_text[0]", "has 11 characters, at most 10 are taken"),
        (b'"\\ud800"', "", "input_text[0]", "surrogate"),
    ],
)
def test_refuses_with_field_and_limit(body: bytes, query: str, field: str, message: str) -> None:
    """What is refused is named, and so is the limit."""
    with pytest.raises(RequestError) as caught:
        read(body, query)

    error = caught.value.answer().error
    assert error.field == field
    assert error.message.startswith(field)
    assert message in error.message


def test_limits_are_inclusive() -> None:
    """Exactly the limit is taken."""
    assert read(b'["1234567890", "b", "c"]').values == ("1234567890", "b", "c")
