"""HTTP header fields as Go's ``net/http`` holds them: canonical names, sorted."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from operator import itemgetter

from project.asyncapi import gojson
from project.asyncapi.types import Headers

BY_NAME = itemgetter(0)
RawHeaders = Iterable[tuple[bytes, bytes]]
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def canonical(name: str) -> str:
    """``x-request-id`` as ``X-Request-Id`` (textproto.CanonicalMIMEHeaderKey)."""
    if not _TOKEN.fullmatch(name):
        return name
    return "-".join(part.capitalize() for part in name.split("-"))


def to_go(raw: RawHeaders, without: frozenset[str]) -> Headers:
    """Sorted by canonical name, repeated ones in their order; ``without`` some of those names.

    Values are UTF-8; other bytes become U+FFFD, as in the JSON that Cortex stores them in.
    """
    pairs = [(_name(name), gojson.text(value)) for name, value in raw]
    return tuple(sorted((pair for pair in pairs if pair[0] not in without), key=BY_NAME))


@functools.lru_cache(maxsize=1024)
def _name(raw: bytes) -> str:
    return canonical(raw.decode("latin-1"))
