"""Values with units, as Cortex's files write them: quantities, durations, shares of replicas.

They stay text, for that is what a file holds and what is shown again; what they amount to is
computed here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

DECIMAL_SUFFIXES = ("n", "u", "m", "", "k", "M", "G", "T", "P", "E")
BINARY_SUFFIXES = ("Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
SCALES = {suffix: Decimal(1000) ** (power - 3) for power, suffix in enumerate(DECIMAL_SUFFIXES)} | {
    suffix: Decimal(1024) ** power for power, suffix in enumerate(BINARY_SUFFIXES, start=1)
}
QUANTITY = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d{1,2})|([A-Za-z]*))", re.ASCII)

SECONDS = {
    "ns": Decimal("1e-9"),
    "us": Decimal("1e-6"),
    "µs": Decimal("1e-6"),
    "μs": Decimal("1e-6"),
    "ms": Decimal("1e-3"),
    "s": Decimal(1),
    "m": Decimal(60),
    "h": Decimal(3600),
}
DURATION_PART = re.compile(r"(\d+\.?\d*|\.\d+)([^\d.]*)", re.ASCII)
MAX_DURATION = Decimal(2**63 - 1) * SECONDS["ns"]

MAX_INT32 = 2**31 - 1


def parse_quantity(text: str) -> Decimal:
    """What a Kubernetes quantity amounts to, in cores or bytes: "200m" is 0.2, "1Ki" is 1024.

    Source: k8s.io/apimachinery/pkg/api/resource/quantity.go

    Raises:
        ValueError: it is none.
    """
    match = QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"must be a number and a suffix, such as 200m or 512Mi, not {text!r}")
    number, exponent, suffix = match.groups()
    if exponent is not None:
        return Decimal(number).scaleb(int(exponent))
    if suffix not in SCALES:
        hint = "; kilo is written k or Ki" if suffix == "K" else ""
        known = ", ".join(filter(None, SCALES))
        raise ValueError(f"has the unknown suffix {suffix!r} (known: {known}){hint}")
    return Decimal(number) * SCALES[suffix]


def parse_duration(text: str) -> Decimal:
    """The seconds of a Go duration: "1m30s" is 90.

    Source: https://pkg.go.dev/time#ParseDuration

    Raises:
        ValueError: it is none.
    """
    sign, parts = (-1, text[1:]) if text.startswith("-") else (1, text.removeprefix("+"))
    if parts == "0":
        return Decimal(0)
    if not parts or "".join(f"{n}{unit}" for n, unit in DURATION_PART.findall(parts)) != parts:
        raise ValueError(f"must be a duration such as 30s, 5m or 1h30m, not {text!r}")
    seconds = Decimal(0)
    for number, unit in DURATION_PART.findall(parts):
        if unit not in SECONDS:
            problem = f"the unknown unit {unit!r}" if unit else "no unit"
            raise ValueError(f"has {problem} (known: ns, us, ms, s, m, h): {text!r}")
        seconds += Decimal(number) * SECONDS[unit]
    if seconds > MAX_DURATION:
        raise ValueError(f"is too long a duration: {text!r}")
    return sign * seconds


def parse_share(text: str) -> Decimal:
    """A number of replicas, or the percentage of them, of an update strategy.

    Raises:
        ValueError: it is neither.
    """
    number = text.removesuffix("%")
    most = 100 if text.endswith("%") else MAX_INT32
    if not re.fullmatch(r"\+?[0-9]{1,10}", number) or int(number) > most:
        raise ValueError(
            f"must be a whole number of replicas or a percentage from 0% to 100%, not {text!r}"
        )
    return Decimal(int(number))


def _at_least(parse: Callable[[str], Decimal], least: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if parse(text) < parse(least):
            raise ValueError(f"must be at least {least}, not {text}")
        return text

    return check


def _multiple_of(unit: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if parse_duration(text) % parse_duration(unit) != 0:
            raise ValueError(f"must be a multiple of {unit}, not {text}")
        return text

    return check


def _share(text: str) -> str:
    parse_share(text)
    return text


def _number_as_text(value: Any) -> Any:  # noqa: ANN401 -- what a file holds
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _whole_as_text(value: Any) -> Any:  # noqa: ANN401 -- what a file holds
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


_QUANTITY_SCHEMA = {
    "type": "string",
    "pattern": rf"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{{1,2}}|{'|'.join(SCALES)})$",
}
_DURATION_SCHEMA = {"type": "string", "pattern": r"^\+?(0|([0-9.]+(ns|us|µs|μs|ms|s|m|h))+)$"}

Cpu = Annotated[
    str,
    BeforeValidator(_number_as_text),
    AfterValidator(_at_least(parse_quantity, "20m")),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0.02}, _QUANTITY_SCHEMA]}),
]
Memory = Annotated[
    str, AfterValidator(_at_least(parse_quantity, "20Mi")), WithJsonSchema(_QUANTITY_SCHEMA)
]
SharedMemory = Annotated[
    str, AfterValidator(_at_least(parse_quantity, "0")), WithJsonSchema(_QUANTITY_SCHEMA)
]
Duration = Annotated[
    str, AfterValidator(_at_least(parse_duration, "0s")), WithJsonSchema(_DURATION_SCHEMA)
]
Window = Annotated[
    str,
    AfterValidator(_at_least(parse_duration, "10s")),
    AfterValidator(_multiple_of("10s")),
    WithJsonSchema(_DURATION_SCHEMA),
]
Share = Annotated[
    str,
    BeforeValidator(_whole_as_text),
    AfterValidator(_share),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": r"^\+?([0-9]+|([0-9]|[1-9][0-9]|100)%)$"},
            ]
        }
    ),
]
