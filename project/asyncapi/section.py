"""What the sections of Cortex's files are made of: strict models, and text that obeys a rule."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic_core.core_schema import (
    CoreSchema,
    no_info_after_validator_function,
    no_info_before_validator_function,
)

Key = tuple[int | str, ...]
"""From a section to a value in it."""


class Section(BaseModel):
    """A map with these keys and no others; nothing is cast, for Cortex casts nothing either."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class KeyProblem(ValueError):
    """One key of a section is wrong: raised by checks of the whole section.

    Attributes:
        key: from the section to the value.
    """

    def __init__(self, message: str, *key: int | str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A check of a value of the right type, and what a JSON schema says of it."""

    check: Callable[[Any], Any]
    schema: dict[str, Any]

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        narrowed: dict[str, Any] = handler(schema) | self.schema
        return narrowed


def matches(pattern: str, rule: str) -> Rule:
    """Text of which all matches ``pattern``; ``rule`` ends the sentence "must be"."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {rule}, not {text!r}")
        return text

    return Rule(check, {"pattern": f"^(?:{pattern})$"})


def none_of(values: Collection[object], why: str) -> Rule:
    """Anything but ``values``; ``why`` ends the sentence "8888 is"."""

    def check(value: object) -> object:
        if value in values:
            raise ValueError(f"{value} is {why}")
        return value

    return Rule(check, {"not": {"enum": list(values)}})


Count = Annotated[int, Field(ge=0)]
DNS_LABEL = matches(
    "[a-z]([-a-z0-9]*[a-z0-9])?",
    "lower-case letters, digits and dashes, from a letter to a letter or digit",
)

# Registry, path, tag and digest of the grammar of distribution/reference.
Image = Annotated[
    str,
    matches(
        r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d+)?/)?"
        r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*"
        r"(?::\w[\w.-]{0,127})?"
        r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
        "an image, [registry/]path[:tag][@digest], in lower case but for the tag",
    ),
]


def _absolute(path: str) -> str:
    return "/" + path.strip("/")


# A URL's path as Cortex makes it: with a slash at its begin and none at its end.
URLPath = Annotated[
    str,
    matches(
        r"(?!.*//)[a-zA-Z0-9_\-./]+",
        "a path of letters, digits and _ - . / without two slashes in a row",
    ),
    AfterValidator(_absolute),
]


class NotNull:
    """No explicit null where null means a default that depends on other sections."""

    def __get_pydantic_core_schema__(
        self, source: object, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        (allowed,) = (each for each in handler(schema)["anyOf"] if each != {"type": "null"})
        return dict(allowed)

    def _check(self, value: object) -> object:
        if value is None:
            raise ValueError("must not be empty: leave the key out for its default")
        return value


def check_unique(
    values: Iterable[str],
    used_by: str = "",
    *,
    before: Key = (),
    after: Key = (),
) -> None:
    """Refuse the second of two items of a list that have the same value.

    Args:
        used_by: what these items are, if it is not the value alone.
        before, after: keys that lead to the list, and in its items to the value.

    Raises:
        KeyProblem: at that item.
    """
    seen: set[str] = set()
    for index, value in enumerate(values):
        if value in seen:
            problem = f"is used by more than one {used_by}" if used_by else "is given twice"
            raise KeyProblem(f"{value} {problem}", *before, index, *after)
        seen.add(value)
