"""What is wrong with a file, in sentences: which line, which key, which limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from project.asyncapi.document import Document, Path
from project.asyncapi.section import KeyProblem

EXPECTED = {
    "string_type": "a string",
    "int_type": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a map",
    "model_type": "a map",
    "literal_error": "{expected}",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}
"""By pydantic's type of error, what ends the sentence "must be"."""

HINTS = {
    "max_queue_length": "is a key of a RealtimeAPI, not of an AsyncAPI",
    "apis": "is a key of a TrafficSplitter, not of an AsyncAPI",
    "account_id": "is set by Cortex itself",
    "bucket": "is set by Cortex itself",
    "cluster_uid": "is set by Cortex itself",
    "cortex_policy_arn": "is set by Cortex itself",
    "provider": "is no key any more: Cortex runs on AWS only",
}
"""Of keys that are known elsewhere."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, or, as an advice, that is surely not meant."""

    line: int
    key: str
    message: str

    def __str__(self) -> str:
        return f"{self.key}: {self.message}" if self.key else self.message


def find_problems(
    error: ValidationError, document: Document, root: type[BaseModel]
) -> list[Problem]:
    """The errors of pydantic as problems, by line.

    Args:
        root: the model of the document, or of the items of its list.
    """
    real = (each for each in error.errors() if each["type"] != "default_factory_not_called")
    return sorted({_problem(each, document, root) for each in real})


def at(document: Document, path: Path, message: str) -> Problem:
    """A problem with what stands at ``path``."""
    return Problem(document.line(path), show(path), message)


def show(path: Path) -> str:
    """``(0, "pod", "port")`` as ``[0].pod.port``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return "".join(parts).removeprefix(".")


def _problem(error: ErrorDetails, document: Document, root: type[BaseModel]) -> Problem:
    path: Path = tuple(part for part in error["loc"] if part != "[key]")
    cause = error.get("ctx", {}).get("error")
    if isinstance(cause, KeyProblem):
        path += cause.key
    message = str(cause) if isinstance(cause, Exception) else _message(error, path, root)
    if error["type"] == "string_type" and document.texts.get(path):
        message += f': put it in quotes, "{document.texts[path]}"'
    return at(document, path, message)


def _message(error: ErrorDetails, path: Path, root: type[BaseModel]) -> str:
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "extra_forbidden":
        return _unknown_key(path, root)
    if value is None:
        return "must not be empty" + _way_out(path, root)
    limits = {name: _limit(limit) for name, limit in context.items()}
    shown = len(value) if "too_" in kind else _shown(value)
    return f"must be {EXPECTED[kind].format_map(limits)}, not {shown}"


def _limit(limit: object) -> str:
    """Of a number, without the zeros that make it a float; of texts, without quotes."""
    if isinstance(limit, float):
        return f"{limit:g}"
    return str(limit).replace("'", "")


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a map" if isinstance(value, dict) else "a list"
    return repr(value)


def _way_out(path: Path, root: type[BaseModel]) -> str:
    field = _model_at(path[:-1], root).model_fields.get(str(path[-1])) if path else None
    return ": leave the key out for its default" if field and not field.is_required() else ""


def _unknown_key(path: Path, root: type[BaseModel]) -> str:
    key, known = str(path[-1]), list(_model_at(path[:-1], root).model_fields)
    if key in HINTS:
        return HINTS[key]
    places = sorted((place[:-1] for place in _places(root) if place[-1] == key), key=len)
    if places and all(len(place) > len(places[0]) for place in places[1:]):
        return f"is no key of this section; it belongs in {show(places[0]) or 'the top level'}"
    if close := get_close_matches(key, known, n=1):
        return f"is no key of this section; did you mean {close[0]}?"
    return f"is no key of this section; its keys are {', '.join(known)}"


def _model_at(path: Path, root: type[BaseModel]) -> type[BaseModel]:
    model = root
    for part in path:
        field = model.model_fields.get(str(part))
        model = (field and _model_in(field.annotation)) or model
    return model


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model in ``annotation``: itself, or what a list or an option holds."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)


def _places(model: type[BaseModel], above: Path = ()) -> Iterator[Path]:
    """Every key below ``model``."""
    for name, field in model.model_fields.items():
        yield (*above, name)
        below = _model_in(field.annotation)
        if below is not None:
            yield from _places(below, (*above, name))
