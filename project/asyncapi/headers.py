"""HTTP header fields as Go's ``net/http`` holds them: canonical names, sorted."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

from project.asyncapi import gojson
from project.asyncapi.types import Headers

RawHeaders = Iterable[tuple[bytes, bytes]]
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


@functools.lru_cache(maxsize=1024)
def canonical(name: str) -> str:
    """``x-request-id`` as ``X-Request-Id`` (textproto.CanonicalMIMEHeaderKey)."""
    if not _TOKEN.fullmatch(name):
        return name
    return "-".join(part.capitalize() for part in name.split("-"))


def to_go(raw: RawHeaders, without: frozenset[str]) -> Headers:
    """Sorted by canonical name, repeated ones in their order; ``without`` names in lower case.

    Values are UTF-8; other bytes become U+FFFD, as in the JSON that Cortex stores them in.
    """
    pairs = ((name.decode("latin-1"), gojson.text(value)) for name, value in raw)
    kept = [(canonical(name), value) for name, value in pairs if name.lower() not in without]
    return tuple(sorted(kept, key=lambda pair: pair[0]))
