"""What goes over the wire: the requests that are understood, and the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qsl

from pydantic import BaseModel, Field


class Scored(BaseModel):
    """What the model says of one text."""

    label: str = Field(examples=["POSITIVE"])
    score: float = Field(description="probability of the label", ge=0, le=1)
    scores: dict[str, float] = Field(description="probability of every label")
    tokens: int = Field(description="of the whole text")
    windows: int = Field(description="in which the text was read, 1 if the model read it at once")
    truncated: bool = Field(description="whether a part of the text was not read")


class Classification(Scored):
    """The answer to one text."""

    model: str = Field(description="the model that answered", examples=["minilm-l6-sst2"])


class Classifications(BaseModel):
    """The answer to a list of texts: an object, for Cortex fails every poll of a bare list."""

    predictions: list[Scored] = Field(description="one per text, in their order")
    model: str


class ErrorDetail(BaseModel):
    """What was wrong with a request."""

    message: str
    field: str = Field(description="the part of the request that was refused")


class ErrorAnswer(BaseModel):
    """The answer to a request that was refused."""

    error: ErrorDetail


class Health(BaseModel):
    """The answer of ``GET /healthcheck``."""

    status: str = Field(examples=["ready"])
    reason: str | None = Field(None, description="why it is not ready")
    model: str | None = None


class ClassifyRequest(BaseModel):
    """The JSON body of ``POST /``."""

    input_text: str | list[str] = Field(examples=["i like you"])


class RequestError(ValueError):
    """A request was refused: ``field`` names the part, the message what it must be.

    Attributes:
        status: the HTTP status for a caller who is connected directly.
    """

    def __init__(self, field: str, message: str, status: int = 422) -> None:
        super().__init__(f"{field} {message}")
        self.field = field
        self.status = status

    def answer(self) -> ErrorAnswer:
        """The error as it is sent."""
        return ErrorAnswer(error=ErrorDetail(message=str(self), field=self.field))


@dataclass(frozen=True, slots=True)
class Limits:
    """The most that one request may hold."""

    body_bytes: int
    texts: int
    text_chars: int


@dataclass(frozen=True, slots=True)
class Texts:
    """What a request asks to classify; ``single``: it sent one text, not a list."""

    values: tuple[str, ...]
    single: bool


def read_texts(body: bytes, query: str, original_path: str, limits: Limits) -> Texts:
    """Find the texts of a request: in its body, else its query, else the query it came with.

    The Content-Type is not asked: ``curl -d`` calls JSON a form. Cortex keeps the query off the
    request line, and its ingress leaves it in ``X-Envoy-Original-Path``.

    Args:
        query: the raw query string of the request line.
        original_path: the value of ``X-Envoy-Original-Path``, or an empty string.

    Raises:
        RequestError: there is no text, or one is outside ``limits``.
    """
    if body.strip():
        found = _texts_in_body(body)
    else:
        found = _texts_in_form(query)
        if found is None:
            found = _texts_in_form(original_path.partition("?")[2])
    if found is None:
        raise RequestError("input_text", "is missing: send it in a JSON body or in the query")
    texts = [found] if isinstance(found, str) else found
    return Texts(_check_texts(texts, limits), single=isinstance(found, str))


def _texts_in_body(body: bytes) -> str | list[object] | None:
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        found = _texts_in_form(body.decode(errors="replace"))
        if found is None:
            raise RequestError("body", f"is not JSON: {error}") from error
        return found
    if isinstance(value, dict):
        if "input_text" not in value:
            raise RequestError("input_text", "is missing in the JSON body")
        value = value["input_text"]
    if not isinstance(value, str | list):
        kind = type(value).__name__
        raise RequestError("input_text", f"must be a string or a list of strings, not {kind}")
    return value


def _texts_in_form(form: str) -> str | list[object] | None:
    """The value or values of ``input_text`` in an urlencoded query or body, if it has any."""
    try:
        pairs = parse_qsl(form, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise RequestError("input_text", "is not percent-encoded UTF-8") from error
    values: list[object] = [value for name, value in pairs if name == "input_text"]
    if len(values) == 1:
        return str(values[0])
    return values or None


def _check_texts(texts: Sequence[object], limits: Limits) -> tuple[str, ...]:
    if not texts:
        raise RequestError("input_text", "must hold at least one text")
    if len(texts) > limits.texts:
        raise RequestError(
            "input_text", f"holds {len(texts)} texts, at most {limits.texts} are taken"
        )
    return tuple(_check_text(index, text, limits) for index, text in enumerate(texts))


def _check_text(index: int, text: object, limits: Limits) -> str:
    field = f"input_text[{index}]"
    if not isinstance(text, str):
        raise RequestError(field, f"must be a string, not {type(text).__name__}")
    if not text.strip():
        raise RequestError(field, "is empty")
    if len(text) > limits.text_chars:
        raise RequestError(
            field, f"has {len(text)} characters, at most {limits.text_chars} are taken"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise RequestError(field, "has a surrogate that is no part of a character") from error
    return text
