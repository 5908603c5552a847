"""The OpenAPI document: what ``POST /`` takes, in every form, with examples that can be tried."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from project.bodies import FORM, MULTIPART, PLAIN
from project.inputs import MAX_ID_CHARS, MAX_TOP_K
from project.problems import MEDIA_TYPE, Kind
from project.schemas import (
    Classification,
    Classifications,
    ErrorResult,
    Health,
    ProblemDetails,
    Refusals,
)
from project.sentiment.options import OnLongText

Schema = dict[str, Any]

REF = "#/components/schemas/{model}"
PROBLEM = MEDIA_TYPE.decode()
ANSWERS = (Classification, Classifications, Refusals, ErrorResult)
MODELS = (*ANSWERS, Health, ProblemDetails)

DESCRIPTION = """\
Says of a text whether its sentiment is positive or negative.

Behind a Cortex AsyncAPI (`X-Cortex-Request-ID` is there) an error that is the request's own comes
as a result, `{"error": {…}}` with status 200; to a caller who is connected directly, with its
status and as `application/problem+json` (RFC 9457).
"""

CLASSIFY = """\
Send the text in the body, as JSON, as a form or as plain text, or in the query. The first of these
that carries `input_text` counts: the body, the query, the query in `X-Envoy-Original-Path`.

    curl -X POST 'http://localhost:8000/?input_text=i%20like%20you' -d ''
    curl 'http://localhost:8000/' -H 'content-type: application/json' -d '{"input_text": "a film"}'
    curl 'http://localhost:8000/' --data-urlencode 'input_text=i like you'
    curl 'http://localhost:8000/' -F 'input_text=i like you'
    curl 'http://localhost:8000/' -H 'content-type: text/plain' -d 'i like you'

A list of texts gets a list of predictions, in their order; a text in it that cannot be classified
gets an `error` in the place of its prediction. The body may be gzipped (`Content-Encoding`).
"""

TEXT: Schema = {
    "type": "string",
    "minLength": 1,
    "pattern": r"[^\s\u0000]",
    "description": "text to classify; not blank",
}
TEXTS: Schema = {
    "type": "array",
    "minItems": 1,
    "items": {"description": "a text, or an object with `text` and `id`; else an error of its own"},
}
ID: Schema = {
    "type": ["string", "null"],
    "maxLength": MAX_ID_CHARS,
    "description": "comes back with the answer",
}
OPTIONS: dict[str, Schema] = {
    "on_long": {
        "enum": [*OnLongText],
        "description": "what to do with a text that the model cannot read at once;"
        " without it, the service's ON_LONG_TEXT",
    },
    "top_k": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_TOP_K,
        "description": "of how many labels to tell the score; without it, of all",
    },
}
JSON_OPTIONS: dict[str, Schema] = {
    name: {"anyOf": [schema, {"type": "null"}]} for name, schema in OPTIONS.items()
}

EXAMPLES: Schema = {
    "one": {"summary": "one text", "value": {"input_text": "i like you"}},
    "list": {"summary": "a list", "value": {"input_text": ["i like you", "i hate you"]}},
    "options": {
        "summary": "options",
        "value": {
            "input_text": ["i like you", {"id": "b", "text": "i hate you"}],
            "id": "request 1",
            "on_long": "truncate",
            "top_k": 1,
        },
    },
}
FORM_SCHEMA: Schema = {
    "type": "object",
    "required": ["input_text"],
    "properties": {
        "input_text": {**TEXT, "description": "text to classify; repeat it for a list"},
        **OPTIONS,
    },
}
JSON_SCHEMA: Schema = {
    "oneOf": [
        TEXT,
        TEXTS,
        {
            "type": "object",
            "required": ["input_text"],
            "properties": {"input_text": {"oneOf": [TEXT, TEXTS]}, "id": ID, **JSON_OPTIONS},
        },
    ]
}
BODY: Schema = {
    "required": True,  # where the query has no text, which is what a schema can say
    "content": {
        "application/json": {"schema": JSON_SCHEMA, "examples": EXAMPLES},
        FORM: {"schema": FORM_SCHEMA, "example": {"input_text": "i like you"}},
        MULTIPART: {"schema": FORM_SCHEMA, "example": {"input_text": "i like you"}},
        PLAIN: {"schema": TEXT, "example": "i like you"},
    },
}
PARAMETERS: list[Schema] = [
    {
        "name": "input_text",
        "in": "query",
        "description": "the text or the texts, if the body carries none: nothing, or `{}`",
        "schema": {"type": "array", "items": {"type": "string"}},
    },
]
PROVENANCE: Schema = {
    name: {"schema": {"type": "string"}, "description": description}
    for name, description in {
        "X-Model": "name of the model",
        "X-Model-Revision": "start of the SHA-256 of its weights",
        "X-Model-Backend": "what computed",
        "Server-Timing": "milliseconds in the tokenizer, the queue and the model, and in all",
    }.items()
}
HEALTHCHECK: Schema = {
    "response_model": Health,
    "responses": {503: {"model": Health, "description": "Not ready, with the reason"}},
}


def describe(app: FastAPI) -> None:
    """Let ``/openapi.json`` hold ``POST /`` too, which is no route of FastAPI's."""

    def document() -> Schema:
        if app.openapi_schema is None:
            schema = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
            )
            schema["paths"] = {"/": {"post": _operation()}, **schema["paths"]}
            _, models = models_json_schema(
                [(model, "serialization") for model in MODELS], ref_template=REF
            )
            schema.setdefault("components", {}).setdefault("schemas", {}).update(models["$defs"])
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _operation() -> Schema:
    return {
        "summary": "Classify a text or a list of texts",
        "operationId": "classify",
        "description": CLASSIFY,
        "parameters": PARAMETERS,
        "requestBody": BODY,
        "responses": {"200": _answered(), **_refused()},
    }


def _answered() -> Schema:
    schema = {"anyOf": [{"$ref": REF.format(model=each.__name__)} for each in ANSWERS]}
    return {
        "description": "Classified; or, behind Cortex, what was wrong with the request",
        "headers": PROVENANCE,
        "content": {"application/json": {"schema": schema}},
    }


def _refused() -> Schema:
    """A response for every status that a problem has."""
    kinds: dict[int, list[Kind]] = {}
    for kind in Kind:
        if kind not in {Kind.NOT_FOUND, Kind.METHOD_NOT_ALLOWED, Kind.CLIENT_LEFT}:
            kinds.setdefault(kind.status, []).append(kind)
    content = {PROBLEM: {"schema": {"$ref": REF.format(model=ProblemDetails.__name__)}}}
    return {
        str(status): {"description": "; ".join(kind.title for kind in some), "content": content}
        for status, some in sorted(kinds.items())
    }
