"""JSON as Go's ``encoding/json`` reads and writes it: Cortex stores results that way.

A result goes through ``json.NewDecoder(body).Decode`` and ``json.Marshal`` of Go 1.17 before a
client sees it (cortexlabs/cortex, pkg/dequeuer/async_handler.go and pkg/async-gateway/service.go):
numbers become float64, keys are sorted, and some characters are escaped.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from typing import Any, NoReturn

_WHITESPACE = " \t\r\n"
_SHORT_ESCAPES = {"\\b": "\\u0008", "\\f": "\\u000c"}
# Characters that Go escapes so that the text is safe inside HTML and JavaScript.
_HTML_ESCAPES = str.maketrans(
    {char: f"\\u{ord(char):04x}" for char in ("<", ">", "&", "\u2028", "\u2029")}
)
_STRING_OR_FLOAT = re.compile(r'"(?:[^"\\]|\\.)*"|-0\.0(?![0-9])|-?[0-9.]+e[-+][0-9]+')
_SURROGATES = re.compile("[\ud800-\udfff]")


def decode(body: bytes) -> object:
    """The first JSON value of ``body``; what follows it is not looked at.

    Invalid UTF-8 and lone surrogates become U+FFFD.

    Raises:
        ValueError: there is none.
    """
    try:
        value, _ = _DECODER.raw_decode(text(body).lstrip(_WHITESPACE))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return value


def text(raw: bytes) -> str:
    """``raw`` as UTF-8; each byte that is none becomes U+FFFD."""
    return raw.decode("utf-8", errors="go")


def encode(value: object) -> bytes:
    """``value``, as :func:`decode` returns it, in one line of UTF-8."""
    line = _SURROGATES.sub("\ufffd", _ENCODER.encode(value)).translate(_HTML_ESCAPES)
    if "\\b" in line or "\\f" in line:
        line = re.sub(r"\\.", lambda pair: _SHORT_ESCAPES.get(pair[0], pair[0]), line)
    return _STRING_OR_FLOAT.sub(_go_float, line).encode()


def kind(encoded: bytes) -> str:
    """Go's name of an encoded value's type: object, array, string, number, bool or null."""
    names = {
        b"{": "object",
        b"[": "array",
        b'"': "string",
        b"n": "null",
        b"t": "bool",
        b"f": "bool",
    }
    return names.get(encoded[:1], "number")


def _number(literal: str) -> float | int:
    value = float(literal)
    if math.isinf(value):
        raise ValueError(f"cannot unmarshal number {literal} into Go value of type float64")
    if not value.is_integer() or abs(value) >= 1e21 or (value == 0 and literal.startswith("-")):
        return value
    # The shortest digits that name this float64, then zeros: what is beyond 2**53 loses digits.
    digits, _, exponent = repr(value).partition("e")
    if not exponent:
        return int(value)
    whole, _, fraction = digits.partition(".")
    return int(whole + fraction + "0" * (int(exponent) - len(fraction)))


def _go_float(token: re.Match[str]) -> str:
    """Python's text of a float as Go writes it: an exponent only below 1e-6 and from 1e21 on."""
    if token[0].startswith('"'):
        return token[0]
    if token[0] == "-0.0":
        return "-0"
    mantissa, _, exponent = token[0].partition("e")
    power = int(exponent)
    if -6 <= power < 0:
        sign, digits = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
        return f"{sign}0.{'0' * (-power - 1)}{digits.replace('.', '')}"
    return f"{mantissa}e{exponent[0]}{abs(power):d}" if power < 0 else f"{mantissa}e+{power}"


def _not_json(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON value")


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    return {_SURROGATES.sub("\ufffd", key): value for key, value in pairs}


def _replace_each_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error("go", _replace_each_byte)

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), sort_keys=True)
_DECODER = json.JSONDecoder(
    parse_float=_number, parse_int=_number, parse_constant=_not_json, object_pairs_hook=_pairs
)
