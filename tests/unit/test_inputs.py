"""Where the texts of a request come from, and what may be asked of them."""

from __future__ import annotations

import contextlib
import gzip
import json
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.bodies import inflate
from project.inputs import Limits, Submission, read_submission
from project.problems import Kind, Problem
from project.sentiment.options import OnLongText

LIMITS = Limits(body_bytes=1000, texts=3, text_chars=10)
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=b"


def read(
    body: bytes = b"", query: str = "", original_path: str = "", content_type: str = ""
) -> Submission:
    """``read_submission`` with this file's limits."""
    return read_submission(body, content_type, query, original_path, LIMITS)


def part(value: str, disposition: str = 'name="input_text"') -> str:
    """One part of a multipart body."""
    return f"--b\r\nContent-Disposition: form-data; {disposition}\r\n\r\n{value}\r\n"


def one(text: str) -> Submission:
    """A text that was sent alone."""
    return Submission((text,), single=True, ids=(None,))


def many(*texts: str) -> Submission:
    """Texts that were sent as a list."""
    return Submission(texts, single=False, ids=(None,) * len(texts))


@pytest.mark.parametrize(
    ("body", "query", "original_path", "expected"),
    [
        (b'{"input_text": "a b"}', "", "", one("a b")),
        (b'{"input_text": ["a", "b"]}', "", "", many("a", "b")),
        (b'{"input_text": ["a"]}', "", "", many("a")),
        (b'["a", "b"]', "", "", many("a", "b")),
        (b'"a"', "", "", one("a")),
        ('{"input_text": "ü😀"}'.encode(), "", "", one("ü😀")),
        ('\ufeff{"input_text": "a"}'.encode(), "", "", one("a")),
        (b'{"input_text": "a", "input_text": "b"}', "", "", one("b")),
        (b'{"input_text": "a\\u0000b"}', "", "", one("a\0b")),
        (b"input_text=a+%26+b", "", "", one("a & b")),
        (b"", "input_text=a%20b", "", one("a b")),
        (b" \n", "input_text=a", "", one("a")),
        (b"", "input_text=a&input_text=b", "", many("a", "b")),
        (b"", "", "/sentiment?input_text=a%2Bb+c", one("a+b c")),
        (b"", "x=1", "/sentiment/?input_text=a", one("a")),
        (b'{"input_text": "a"}', "input_text=b", "/?input_text=c", one("a")),
        (b"{}", "input_text=b", "", one("b")),
        (b'{"text": "a"}', "", "/?input_text=c", one("c")),
        (b"", "input_text=b", "/?input_text=c", one("b")),
        (b"", "input_text=\u00fc", "", one("\u00fc")),
        (b"", "", "//[?input_text=a", one("a")),
    ],
)
def test_finds_texts(body: bytes, query: str, original_path: str, expected: Submission) -> None:
    """The body wins over the query, the query over the one that Envoy left in a header."""
    assert read(body, query, original_path) == expected


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (FORM, '{"input_text": "a"}', one("a")),
        (FORM, "input_text=a&input_text=b", many("a", "b")),
        (FORM, "x=1", one("query")),
        ("application/json", "input_text=a", one("a")),
        ("application/vnd.api+json; charset=utf-8", '"a"', one("a")),
        ("application/xml", '{"input_text": "a"}', one("a")),
        ("text/plain", "a b", one("a b")),
        ("text/plain; charset=UTF-8", "ü", one("ü")),
        ("text/plain", '"a"', one('"a"')),
        ("text/plain", '{"input_text": "a"}', one("a")),
        ("text/plain", '{"a": 1}', one('{"a": 1}')),
        (MULTIPART, part("a") + "--b--\r\n", one("a")),
        (MULTIPART, part("a") + part("ü") + "--b--\r\n", many("a", "ü")),
        (MULTIPART, part("a", 'name="input_text"; filename="f.txt"') + "--b--\r\n", one("a")),
        (MULTIPART, part("a", 'name="other"') + "--b--\r\n", one("query")),
    ],
)
def test_reads_every_form(content_type: str, body: str, expected: Submission) -> None:
    """The type that a body is labelled with decides only where the body itself does not."""
    assert read(body.encode(), "input_text=query", content_type=content_type) == expected


@pytest.mark.parametrize(
    ("body", "query", "content_type", "kind", "field", "message"),
    [
        (b"", "", "", Kind.MISSING_TEXT, "input_text", "is missing"),
        (b"{}", "", "", Kind.MISSING_TEXT, "input_text", "is missing"),
        (b"a", "", FORM, Kind.MISSING_TEXT, "input_text", "is missing"),
        (b"[]", "", "", Kind.MISSING_TEXT, "input_text", "must hold at least one text"),
        (b"", "input_text=", "", Kind.EMPTY_TEXT, "input_text", "is empty"),
        (b'" \\u0000\\n"', "", "", Kind.EMPTY_TEXT, "input_text", "is empty"),
        (b"", "input_text=%ff", "", Kind.INVALID_TEXT, "input_text", "no part of a character"),
        (b'"\\ud800"', "", "", Kind.INVALID_TEXT, "input_text", "surrogates"),
        (b"3", "", "application/json", Kind.INVALID_TEXT, "body", "not a number"),
        (b'{"input_text": null}', "", "", Kind.INVALID_TEXT, "input_text", "not null"),
        (b'{"input_text": {}}', "", "", Kind.INVALID_TEXT, "input_text", "not an object"),
        (b"{", "", "", Kind.MALFORMED_BODY, "body", "is not JSON"),
        (b'{"input_text": NaN}', "", "", Kind.MALFORMED_BODY, "body", "NaN is no number"),
        (b"[" * 100_000, "", "", Kind.MALFORMED_BODY, "body", "is not JSON"),
        (b'{"a": \xff}', "", "", Kind.MALFORMED_BODY, "body", "is not UTF-8 at byte 6"),
        (b"\xff", "", "text/plain", Kind.MALFORMED_BODY, "body", "is not UTF-8 at byte 0"),
        (b"a", "", "multipart/form-data", Kind.MALFORMED_BODY, "body", "is not multipart"),
        (b"nothing", "", MULTIPART, Kind.MALFORMED_BODY, "body", "is not multipart"),
        (b"<a/>", "", "application/xml", Kind.UNSUPPORTED_MEDIA_TYPE, "Content-Type", "xml"),
        (b"a b", "", "", Kind.UNSUPPORTED_MEDIA_TYPE, "Content-Type", "without a Content-Type"),
        (b"a", "", "text/plain; charset*=utf-8''x; charset*0=y", Kind.UNSUPPORTED_MEDIA_TYPE,
         "Content-Type", "charset*0=y\" is not read; send UTF-8"),
        (b"a", "", "text/plain; charset=latin-1", Kind.UNSUPPORTED_MEDIA_TYPE, "Content-Type",
         "'latin-1' is not read"),
        (b'"12345678901"', "", "", Kind.TEXT_TOO_LONG, "input_text",
         "has 11 characters, at most 10 are taken"),
        (b'["a", "b", "c", "d"]', "", "", Kind.TOO_MANY_TEXTS, "input_text",
         "holds 4 texts, at most 3 are taken"),
        (b"x=1&" * 104, "", FORM, Kind.TOO_MANY_TEXTS, "input_text", "more than 103 fields"),
        (b'"a"', "on_long=cut", "", Kind.INVALID_OPTION, "on_long", "window, truncate, reject"),
        (b'"a"', "top_k=0", "", Kind.INVALID_OPTION, "top_k", "from 1 to 1000"),
        (b'{"input_text": "a", "top_k": true}', "", "", Kind.INVALID_OPTION, "top_k", "whole"),
        (b'{"input_text": "a", "id": 7}', "", "", Kind.INVALID_OPTION, "id", "a string"),
    ],
)  # fmt: skip
def test_refuses_with_field(
    body: bytes, query: str, content_type: str, kind: Kind, field: str, message: str
) -> None:
    """What is refused is named, and so is the limit."""
    with pytest.raises(Problem) as caught:
        read(body, query, content_type=content_type)

    assert (caught.value.kind, caught.value.field) == (kind, field)
    assert message in caught.value.detail


def test_limits_are_inclusive() -> None:
    """Exactly the limit is taken."""
    assert read(b'["1234567890", "b", "c"]').texts == ("1234567890", "b", "c")


def test_problems_carry_their_limit() -> None:
    """A program need not read the sentence."""
    with pytest.raises(Problem) as caught:
        read(b'"12345678901"')

    assert caught.value.members() == {
        "type": "urn:problem-type:sentiment:text-too-long",
        "title": "A text is too long",
        "status": 422,
        "detail": "input_text has 11 characters, at most 10 are taken",
        "field": "input_text",
        "limit": 10,
    }


def test_bad_texts_of_a_list() -> None:
    """One that cannot be classified keeps its place, and the others are taken."""
    texts = read(b'["a", " ", 1]').texts

    assert texts[0] == "a"
    assert [text.field for text in texts if isinstance(text, Problem)] == [
        "input_text[1]",
        "input_text[2]",
    ]


def test_options() -> None:
    """Each is taken from the first source that has it, text or no text."""
    found = read(
        b'{"input_text": ["a", {"text": "b", "id": "y"}], "id": "x", "on_long": "reject"}',
        "on_long=window&top_k=2",
    )

    assert found == Submission(("a", "b"), False, (None, "y"), "x", OnLongText.REJECT, 2)


WORDS = st.text(min_size=1, max_size=10).filter(
    lambda text: text.replace("\0", " ").strip() and "\ud7ff" not in text
)


@settings(deadline=None)  # the machine may be busy
@given(
    body=st.none() | WORDS,
    query=st.none() | WORDS,
    original=st.none() | WORDS,
    form=st.sampled_from(["json", "form", "multipart"]),
)
def test_first_source_wins(
    body: str | None, query: str | None, original: str | None, form: str
) -> None:
    """Whatever the texts: the body, else the query, else the query that came with the path."""
    encoded, content_type = encode(body, form)
    arguments = {
        "query": "" if query is None else urlencode({"input_text": query}),
        "original_path": "/" if original is None else "/?" + urlencode({"input_text": original}),
    }
    expected = next((text for text in (body, query, original) if text is not None), None)

    if expected is None:
        with pytest.raises(Problem, match="is missing"):
            read(encoded, **arguments, content_type=content_type)
    else:
        assert read(encoded, **arguments, content_type=content_type) == one(expected)


def encode(text: str | None, form: str) -> tuple[bytes, str]:
    """A body that carries ``text``, and its type."""
    if form == "json":
        return json.dumps({} if text is None else {"input_text": text}).encode(), ""
    if form == "multipart" and text is not None and text.strip("-\r\n") == text:
        return (part(text) + "--b--\r\n").encode(), MULTIPART
    return urlencode({} if text is None else {"input_text": text}).encode(), FORM


@settings(deadline=None)  # the machine may be busy
@given(st.binary(max_size=200), st.sampled_from(["", FORM, "text/plain", MULTIPART, "a/b", ";"]))
def test_any_bytes_are_read_or_refused(body: bytes, content_type: str) -> None:
    """Nothing that can be sent is answered with anything but a text or a problem."""
    with contextlib.suppress(Problem):
        assert read(body, content_type=content_type).texts


PACKED = gzip.compress(b"a" * 500)


def test_gzip_of_empty_members() -> None:
    """Half a million of them are read in a second: copying what follows each would take minutes."""
    many = gzip.compress(b"") * 500_000

    assert inflate(many + PACKED, "gzip", 1000) == b"a" * 500


def test_gzip_is_inflated() -> None:
    """One member or several, up to the limit."""
    assert inflate(PACKED + PACKED, "gzip", 1000) == b"a" * 1000
    assert inflate(PACKED, "X-GZIP", 500) == b"a" * 500
    assert inflate(b"a", "identity", 1) == b"a"


@pytest.mark.parametrize(
    ("body", "encoding", "kind"),
    [
        (PACKED[:-3], "gzip", Kind.MALFORMED_BODY),
        (b"a", "gzip", Kind.MALFORMED_BODY),
        (PACKED + b"a", "gzip", Kind.MALFORMED_BODY),
        (b"a", "br", Kind.UNSUPPORTED_MEDIA_TYPE),
        (PACKED, "gzip, gzip", Kind.UNSUPPORTED_MEDIA_TYPE),
        (PACKED * 3, "gzip", Kind.BODY_TOO_LARGE),
        (gzip.compress(b"a" * 10**7), "gzip", Kind.BODY_TOO_LARGE),
    ],
)
def test_bad_gzip_is_refused(body: bytes, encoding: str, kind: Kind) -> None:
    """Damaged, too large once inflated, or no gzip at all."""
    with pytest.raises(Problem) as caught:
        inflate(body, encoding, 1000)

    assert caught.value.kind is kind
