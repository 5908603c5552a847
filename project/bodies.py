"""Bodies and queries as fields by name, whatever form they came in.

The Content-Type decides only where it must: ``curl -d`` calls JSON a form, ``fetch`` calls it plain
text, and the body itself is believed more than either.
"""

from __future__ import annotations

import json
import zlib
from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from email.message import Message
from typing import NoReturn
from urllib.parse import parse_qsl

from python_multipart import create_form_parser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from project.problems import Kind, Problem

Fields = Mapping[str, object]
"""A field that is repeated has a list of its values."""

TEXT = "input_text"
FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"
PLAIN = "text/plain"
READ = f"application/json, {FORM}, {MULTIPART} and {PLAIN}"
GZIP_ENCODINGS = {"gzip", "x-gzip"}
GZIP_WINDOW = 31  # zlib: the largest window, and a gzip header
GZIP_PIECE_BYTES = 4096  # what follows a member is copied: small pieces, for there may be many
UTF8_NAMES = {"utf-8", "utf8", "us-ascii"}
SHOWN = 100  # characters of a header's value in a message


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its ``Content-Encoding``.

    Raises:
        Problem: another encoding than gzip, damaged, or more than ``limit`` bytes inflated.
    """
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return body
    if encoding not in GZIP_ENCODINGS:
        raise Problem(
            Kind.UNSUPPORTED_MEDIA_TYPE,
            f"Content-Encoding {encoding[:SHOWN]!r} is not read; send gzip or none",
            field="Content-Encoding",
        )
    try:
        return _gunzip(body, limit)
    except zlib.error as error:
        raise _malformed(f"is not gzip: {error}") from error


def _gunzip(body: bytes, limit: int) -> bytes:
    """What the members of a gzip file hold; it may have many, and empty ones."""
    inflated, position = bytearray(), 0
    member = zlib.decompressobj(GZIP_WINDOW)
    while position < len(body):
        if member.eof:
            member = zlib.decompressobj(GZIP_WINDOW)
        piece = body[position : position + GZIP_PIECE_BYTES]
        inflated += member.decompress(piece, limit + 1 - len(inflated))
        if len(inflated) > limit:
            raise too_large(limit, " inflated")
        position += len(piece) - len(member.unused_data)
    if not member.eof:
        raise _malformed("ends before its gzip data")
    return bytes(inflated)


def too_large(limit: int, what: str = "") -> Problem:
    """The problem of a body over ``limit`` bytes."""
    detail = f"body is longer than {limit} bytes{what}"
    return Problem(Kind.BODY_TOO_LARGE, detail, field="body", limit=limit)


def body_fields(body: bytes, content_type: str, max_fields: int) -> Fields:
    """The fields of a body; none if it is blank.

    Raises:
        Problem: it is in no form that is read, or not what it says it is.
    """
    body = body.removeprefix(BOM_UTF8)
    start = body.lstrip()[:1]
    if not start:
        return {}
    declared = content_type.partition(";")[0].strip().lower()
    if declared == MULTIPART:
        return _multipart_fields(body, content_type)
    if declared == PLAIN:
        return _plain_fields(body, content_type)
    if start in b'{["' or declared == "application/json" or declared.endswith("+json"):
        return _json_or_form_fields(body, max_fields)
    fields = form_fields(body.decode(errors="surrogateescape"), max_fields)
    if declared == FORM or TEXT in fields:
        return fields
    named = f"Content-Type {declared[:SHOWN]!r}" if declared else "a body without a Content-Type"
    raise Problem(
        Kind.UNSUPPORTED_MEDIA_TYPE,
        f"{named} is not read, unless it is JSON or a form; {READ} are",
        field="Content-Type",
    )


def form_fields(form: str, max_fields: int) -> Fields:
    """The fields of an urlencoded form or query; bytes that are no UTF-8 become surrogates.

    Raises:
        Problem: there are more than ``max_fields``.
    """
    if not form:
        return {}
    try:
        pairs = parse_qsl(
            form, keep_blank_values=True, errors="surrogateescape", max_num_fields=max_fields
        )
    except ValueError as error:
        detail = f"a form or a query has more than {max_fields} fields"
        raise Problem(Kind.TOO_MANY_TEXTS, detail, field=TEXT, limit=max_fields) from error
    return _by_name(pairs)


def _by_name(pairs: Sequence[tuple[str, object]]) -> Fields:
    values: dict[str, list[object]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: each if len(each) > 1 else each[0] for name, each in values.items()}


def _json_or_form_fields(body: bytes, max_fields: int) -> Fields:
    try:
        return _json_fields(body)
    except Problem:
        # Labelled as JSON, or begins like it, and is a form with the field all the same.
        fields = form_fields(body.decode(errors="surrogateescape"), max_fields)
        if TEXT in fields:
            return fields
        raise


def _json_fields(body: bytes) -> Fields:
    """An object is its fields; a string or a list alone is the text or the texts."""
    try:
        value = _DECODER.decode(_decoded(body))
    except (ValueError, RecursionError) as error:
        raise _malformed(f"is not JSON: {error}") from error
    if isinstance(value, dict):
        return value
    if isinstance(value, str | list):
        return {TEXT: value}
    raise Problem(
        Kind.INVALID_TEXT,
        f"body must be a JSON object, a string or a list of strings, not {json_type(value)}",
        field="body",
    )


def json_type(value: object) -> str:
    """What JSON calls the type of a value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an object" if isinstance(value, dict) else "a list"


def _no_json_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON's")


_DECODER = json.JSONDecoder(parse_constant=_no_json_number)


def _plain_fields(body: bytes, content_type: str) -> Fields:
    """The body is the text, unless it is a JSON object with the field: ``fetch`` sends that so."""
    message = Message()
    message["Content-Type"] = content_type
    try:
        charset = str(message.get_param("charset", "utf-8")).lower()
    except (TypeError, ValueError):  # email's parser stumbles over some of RFC 2231's forms
        charset = content_type
    if charset not in UTF8_NAMES:
        raise Problem(
            Kind.UNSUPPORTED_MEDIA_TYPE,
            f"charset {charset[:SHOWN]!r} is not read; send UTF-8",
            field="Content-Type",
        )
    text = _decoded(body)
    if text.lstrip().startswith("{"):
        try:
            value = _DECODER.decode(text)
        except (ValueError, RecursionError):
            value = None
        if isinstance(value, dict) and TEXT in value:
            return value
    return {TEXT: text}


def _multipart_fields(body: bytes, content_type: str) -> Fields:
    """Fields and files alike: the content of a part is a text."""
    pairs: list[tuple[str, object]] = []

    def on_field(field: Field) -> None:
        pairs.append((_unescaped(field.field_name), _unescaped(field.value)))

    def on_file(file: File) -> None:
        file.file_object.seek(0)
        pairs.append((_unescaped(file.field_name), _unescaped(file.file_object.read())))
        file.close()

    try:
        parser = create_form_parser(
            {"Content-Type": content_type.encode("latin-1")},
            on_field,
            on_file,
            config={"MAX_MEMORY_FILE_SIZE": len(body) + 1},  # the disk may be read-only
        )
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise _malformed(f"is not {MULTIPART}: {error}") from error
    return _by_name(pairs)


def _unescaped(value: bytes | None) -> str:
    return (value or b"").decode(errors="surrogateescape")


def _decoded(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise _malformed(f"is not UTF-8 at byte {error.start}") from error


def _malformed(what: str) -> Problem:
    return Problem(Kind.MALFORMED_BODY, f"body {what}", field="body")
