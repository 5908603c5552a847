"""What can go wrong with a request, and how it is told: RFC 9457, problem details."""

from __future__ import annotations

from enum import Enum, unique
from typing import Any

TYPE_PREFIX = "urn:problem-type:sentiment:"
MEDIA_TYPE = b"application/problem+json"
RETRY_AFTER_SECONDS = b"1"

RawHeaders = tuple[tuple[bytes, bytes], ...]


@unique
class Kind(Enum):
    """Every problem there is: its name, its status for a direct caller, its title.

    The name ends the problem's ``type``, and is the label ``kind`` of the metrics and of the log.
    """

    MISSING_TEXT = "missing-text", 422, "There is no text to classify"
    EMPTY_TEXT = "empty-text", 422, "A text is empty"
    INVALID_TEXT = "invalid-text", 422, "A text is no text"
    TEXT_TOO_LONG = "text-too-long", 422, "A text is too long"
    TOO_MANY_TEXTS = "too-many-texts", 422, "There are too many texts"
    INVALID_OPTION = "invalid-option", 422, "An option has a value that it cannot have"
    MALFORMED_BODY = "malformed-body", 422, "The body cannot be parsed"
    BODY_TOO_LARGE = "body-too-large", 413, "The body is too large"
    SLOW_BODY = "slow-body", 408, "The body did not arrive in time"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", 415, "The body is in no form that is read"
    NOT_FOUND = "not-found", 404, "There is no such path"
    METHOD_NOT_ALLOWED = "method-not-allowed", 405, "The path has no such method"
    INTERNAL = "internal", 500, "The service failed"
    NOT_READY = "not-ready", 503, "The model is not ready"
    OVERLOADED = "overloaded", 503, "Too much waits for the model"
    TIMEOUT = "timeout", 504, "The model did not come to it in time"
    CLIENT_LEFT = "client-left", 499, "The client left before its answer"

    def __init__(self, slug: str, status: int, title: str) -> None:
        self.slug = slug
        self.status = status
        self.title = title

    @property
    def client_fault(self) -> bool:
        """Whether the request itself is at fault: sending it again would not help."""
        return self.status < 500


class Problem(Exception):
    """A request, or one text of a list, cannot be answered.

    Args:
        detail: a sentence that names the field and the limit.
        field: the part of the request that is at fault.
        limit: the most that is taken, in the unit that the detail names.
    """

    def __init__(
        self, kind: Kind, detail: str, *, field: str | None = None, limit: float | None = None
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.field = field
        self.limit = limit

    def headers(self) -> RawHeaders:
        """What goes with it to a direct caller: when, or how, to try again."""
        if self.kind.status == 503:
            return ((b"retry-after", RETRY_AFTER_SECONDS),)
        if self.field == "Content-Encoding":
            return ((b"accept-encoding", b"gzip, identity"),)
        return ()

    def members(self) -> dict[str, Any]:
        """The members of the problem object."""
        members: dict[str, Any] = {
            "type": TYPE_PREFIX + self.kind.slug,
            "title": self.kind.title,
            "status": self.kind.status,
            "detail": self.detail,
        }
        if self.field is not None:
            members["field"] = self.field
        if self.limit is not None:
            members["limit"] = self.limit
        return members
