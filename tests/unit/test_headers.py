"""Header fields as Go holds them."""

from __future__ import annotations

import pytest

from project.asyncapi.headers import canonical, to_go


@pytest.mark.parametrize(
    ("name", "result"),
    [
        ("x-request-id", "X-Request-Id"),
        ("X-Cortex-Request-ID", "X-Cortex-Request-Id"),
        ("ETAG", "Etag"),
        ("x-1a-b", "X-1a-B"),
        ("x--y-", "X--Y-"),
        ("x_y.z", "X_y.z"),
        ("not a token", "not a token"),
        ("naïve", "naïve"),
        ("", ""),
    ],
)
def test_canonical(name: str, result: str) -> None:
    """Upper case at the start and after hyphens, unless the name is no token."""
    assert canonical(name) == result


def test_sorted_and_grouped() -> None:
    """Names are sorted, repeated ones keep their order, and what is left out is left out."""
    raw = [
        (b"x-twice", b"2"),
        (b"host", b"here"),
        (b"accept", b"*/*"),
        (b"X-Twice", b"1"),
        (b"Content-Length", b"9"),
    ]

    assert to_go(raw, without=frozenset({"Host", "Content-Length"})) == (
        ("Accept", "*/*"),
        ("X-Twice", "2"),
        ("X-Twice", "1"),
    )


def test_values_are_utf8() -> None:
    """Cortex stores them in JSON: UTF-8 stays, and each other byte becomes U+FFFD."""
    raw = [(b"a", "ü".encode()), (b"b", b"x\xff\xfe")]

    assert to_go(raw, without=frozenset()) == (("A", "ü"), ("B", "x\ufffd\ufffd"))
