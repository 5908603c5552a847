"""Where the texts of a request come from, and what may be asked of them: one decision, one place.

The first of these that carries ``input_text`` wins: the body, the query, and the query that Cortex
takes off the request line and its ingress leaves in ``X-Envoy-Original-Path``. Each option is
looked for in the same order, on its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from project.bodies import TEXT, Fields, body_fields, form_fields, json_type
from project.problems import Kind, Problem
from project.sentiment.options import OnLongText

OPTION_FIELDS = 100  # that a form may have beside its texts
MAX_ID_CHARS = 200
MAX_TOP_K = 1000
POLICIES = ", ".join(OnLongText)

Entry = tuple[str | Problem, str | None]
"""A text, or what is wrong with it, and its id."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may hold; ``body_bytes`` also after decompression."""

    body_bytes: int
    texts: int
    text_chars: int


@dataclass(frozen=True, slots=True)
class Submission:
    """What a request asks to classify.

    Attributes:
        texts: in their order, a problem in the place of one that cannot be classified.
        single: it sent one text, not a list; that one has no problem.
        ids: of the texts that have one, which they get back; one for each text.
        id: of the request, if it has one.
        top_k: how many labels to tell the scores of; None: all.
    """

    texts: tuple[str | Problem, ...]
    single: bool
    ids: tuple[str | None, ...] = ()
    id: str | None = None
    on_long: OnLongText | None = None
    top_k: int | None = None


def read_submission(
    body: bytes, content_type: str, query: str, original_path: str, limits: Limits
) -> Submission:
    """Find the texts of a request and its options.

    Args:
        body: without its Content-Encoding.
        query: the raw query string of the request line.
        original_path: the value of ``X-Envoy-Original-Path``, or an empty string.

    Raises:
        Problem: there is no text, or the request is outside ``limits`` or not understood.
    """
    max_fields = limits.texts + OPTION_FIELDS
    sources = (
        body_fields(body, content_type, max_fields),
        form_fields(query, max_fields),
        form_fields(original_path.partition("?")[2], max_fields),
    )
    found = next((fields[TEXT] for fields in sources if TEXT in fields), None)
    if found is None and not any(TEXT in fields for fields in sources):
        raise Problem(Kind.MISSING_TEXT, f"{TEXT} is missing in the body and the query", field=TEXT)
    entries = _check_texts(found, limits)
    return Submission(
        texts=tuple(text for text, _ in entries),
        single=isinstance(found, str),
        ids=tuple(text_id for _, text_id in entries),
        id=_read_id(_option(sources, "id")),
        on_long=_read_on_long(_option(sources, "on_long")),
        top_k=_read_top_k(_option(sources, "top_k")),
    )


def field_name(submission: Submission, index: int) -> str:
    """What to call a text of the request in a message."""
    return TEXT if submission.single else f"{TEXT}[{index}]"


def _option(sources: Sequence[Fields], name: str) -> object:
    return next((fields[name] for fields in sources if fields.get(name) is not None), None)


def _check_texts(found: object, limits: Limits) -> list[Entry]:
    if isinstance(found, str):
        text = _check_text(TEXT, found, limits)
        if isinstance(text, Problem):
            raise text
        return [(text, None)]
    if not isinstance(found, list):
        detail = f"{TEXT} must be a string or a list, not {json_type(found)}"
        raise Problem(Kind.INVALID_TEXT, detail, field=TEXT)
    if not found:
        raise Problem(Kind.MISSING_TEXT, f"{TEXT} must hold at least one text", field=TEXT)
    if len(found) > limits.texts:
        detail = f"{TEXT} holds {len(found)} texts, at most {limits.texts} are taken"
        raise Problem(Kind.TOO_MANY_TEXTS, detail, field=TEXT, limit=limits.texts)
    return [_check_entry(f"{TEXT}[{index}]", entry, limits) for index, entry in enumerate(found)]


def _check_entry(field: str, entry: object, limits: Limits) -> Entry:
    """A text of a list, or an object of a text and its id."""
    if not isinstance(entry, dict):
        return _check_text(field, entry, limits), None
    try:
        text_id = _read_id(entry.get("id"), f"{field}.id")
    except Problem as problem:
        return problem, None
    return _check_text(f"{field}.text", entry.get("text"), limits), text_id


def _check_text(field: str, text: object, limits: Limits) -> str | Problem:
    if not isinstance(text, str):
        detail = f"{field} must be a string, not {json_type(text)}"
        return Problem(Kind.INVALID_TEXT, detail, field=field)
    if not text.replace("\0", " ").strip():
        return Problem(Kind.EMPTY_TEXT, f"{field} is empty", field=field)
    if len(text) > limits.text_chars:
        detail = f"{field} has {len(text)} characters, at most {limits.text_chars} are taken"
        return Problem(Kind.TEXT_TOO_LONG, detail, field=field, limit=limits.text_chars)
    if not _is_unicode(text):
        detail = f"{field} has bytes or surrogates that are no part of a character"
        return Problem(Kind.INVALID_TEXT, detail, field=field)
    return text


def _is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _read_id(value: object, field: str = "id") -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) <= MAX_ID_CHARS and _is_unicode(value):
        return value
    detail = f"{field} must be a string of at most {MAX_ID_CHARS} characters"
    raise Problem(Kind.INVALID_OPTION, detail, field=field, limit=MAX_ID_CHARS)


def _read_on_long(value: object) -> OnLongText | None:
    if value is None:
        return None
    if not isinstance(value, str) or value not in set(OnLongText):
        detail = f"on_long must be one of {POLICIES}"
        raise Problem(Kind.INVALID_OPTION, detail, field="on_long")
    return OnLongText(value)


def _read_top_k(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = float(value)  # a form has only strings
    if isinstance(value, int | float) and value in range(1, MAX_TOP_K + 1) and value is not True:
        return int(value)
    detail = f"top_k must be a whole number from 1 to {MAX_TOP_K}"
    raise Problem(Kind.INVALID_OPTION, detail, field="top_k", limit=MAX_TOP_K)
