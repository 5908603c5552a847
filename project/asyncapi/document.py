"""A YAML file as plain values, and the line on which each of them stands.

What a scalar is (a number, a truth value, text) is decided as Cortex's parser decides it, which
differs from PyYAML's: dates and ``1:30`` are text, ``1e3`` is a number, ``y`` is a truth value.

Source: https://github.com/cortexlabs/yaml (a fork of go-yaml v2), resolve.go
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[int | str, ...]
"""Keys and indices from the root of a document."""

MAX_NODES = 100_000
"""Nodes of a document with its aliases written out: a few lines of them can describe billions."""

TAG = "tag:yaml.org,2002:"
TRUE = re.compile("y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON")
FALSE = re.compile("n|N|no|No|NO|false|False|FALSE|off|Off|OFF")
INT = re.compile(r"[-+]?(?:0[bB][01_]+|0[xX][\da-fA-F_]+|0[oO]?[0-7_]+|0|[1-9][\d_]*)", re.ASCII)
FLOAT = re.compile(
    r"[-+]?(?:\.\d[\d_]*|\d[\d_]*(?:\.[\d_]*)?)(?:[eE][-+]?\d+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
    re.ASCII,
)


class DocumentError(ValueError):
    """A file is not the one YAML document that it should be.

    Attributes:
        line: where, from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Document:
    """What a file says.

    Attributes:
        value: of dicts with string keys, lists and scalars.
        lines: of every key of a dict and every item of a list, from 1.
        texts: of the scalars that are no strings, as they are written.
    """

    value: Any
    lines: dict[Path, int]
    texts: dict[Path, str]

    def line(self, path: Path) -> int:
        """Where ``path`` stands, or the part of it that is there."""
        while path not in self.lines:
            path = path[:-1]
        return self.lines[path]


class _Loader(yaml.SafeLoader):
    pass


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern in {
    "null": re.compile("~|null|Null|NULL|"),
    "bool": re.compile(f"{TRUE.pattern}|{FALSE.pattern}"),
    "int": INT,
    "float": FLOAT,
    "merge": re.compile("<<"),
}.items():
    _Loader.add_implicit_resolver(
        TAG + _tag, re.compile(f"(?:{_pattern.pattern})$", re.ASCII), None
    )


def read_document(text: str) -> Document:
    """Read the one YAML document of ``text``.

    Raises:
        DocumentError: it is none, or says something twice.
    """
    try:
        node = _compose(text)
        builder = _Builder()
        value = builder.build(node, ())
    except RecursionError as error:
        raise DocumentError(1, "is nested too deeply") from error
    lines = {(): node.start_mark.line + 1} | builder.lines
    return Document(value, lines, builder.texts)


def _compose(text: str) -> yaml.Node:
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 1, _explain(error)) from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        character = f"the character U+{error.character:04X}"
        raise DocumentError(line, f"{character} is not allowed") from error
    if node is None:
        raise DocumentError(1, "is empty")
    return node


def _explain(error: yaml.MarkedYAMLError) -> str:
    problem = error.problem or "is not YAML"
    if "'\\t'" in problem:
        return "a tab cannot indent YAML: use spaces"
    if problem == "but found another document":
        return "a second document begins here: Cortex would read the first alone"
    return f"is not YAML: {', '.join(filter(None, (error.context, problem)))}"


class _Builder:
    """Makes the values of nodes, and notes their lines."""

    def __init__(self) -> None:
        self.lines: dict[Path, int] = {}
        self.texts: dict[Path, str] = {}
        self._open: set[int] = set()
        self._nodes = 0

    def build(self, node: yaml.Node, path: Path) -> Any:  # noqa: ANN401 -- any YAML value
        line = node.start_mark.line + 1
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise DocumentError(line, f"has more than {MAX_NODES} values")
        if id(node) in self._open:
            raise DocumentError(line, "contains itself")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self._sequence(node, path)
            value = _scalar(node)
            if not isinstance(value, str):
                self.texts[path] = node.value
            return value
        finally:
            self._open.discard(id(node))

    def _sequence(self, node: yaml.SequenceNode, path: Path) -> list[Any]:
        _expect_tag(node, "seq", "list")
        items = []
        for index, item in enumerate(node.value):
            self.lines[*path, index] = item.start_mark.line + 1
            items.append(self.build(item, (*path, index)))
        return items

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        _expect_tag(node, "map", "map")
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        own_lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            if key_node.tag == f"{TAG}merge":
                merged = self._merge(value_node, path) | merged
        for key_node, value_node in node.value:
            if key_node.tag == f"{TAG}merge":
                continue
            line = key_node.start_mark.line + 1
            key = _key(key_node)
            if key in own:
                raise DocumentError(line, f"{key!r} is given twice, first on line {own_lines[key]}")
            own_lines[key] = self.lines[*path, key] = line
            own[key] = self.build(value_node, (*path, key))
        return merged | own

    def _merge(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """The keys that ``<<`` brings: of one mapping, or of several, the first of which wins."""
        sources = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for source in sources:
            if not isinstance(source, yaml.MappingNode):
                raise DocumentError(node.start_mark.line + 1, "<< must name a map")
            merged = self.build(source, path) | merged
        return merged


def _key(node: yaml.Node) -> str:
    value = _scalar(node) if isinstance(node, yaml.ScalarNode) else node.value
    if not isinstance(value, str):
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or map"
        raise DocumentError(
            node.start_mark.line + 1, f"a key must be a string, not {shown}: put it in quotes"
        )
    return value


def _scalar(node: yaml.Node) -> Any:  # noqa: ANN401 -- any YAML scalar
    text, tag = node.value, node.tag.removeprefix(TAG)
    if tag == "null":
        return None
    if tag in ("str", "merge"):
        return text
    if tag == "bool" and TRUE.fullmatch(text):
        return True
    if tag == "bool" and FALSE.fullmatch(text):
        return False
    if tag == "int" and INT.fullmatch(text):
        return _integer(text)
    if tag == "float" and (FLOAT.fullmatch(text) or INT.fullmatch(text)):
        return float(text.lower().replace("_", "").replace(".inf", "inf").replace(".nan", "nan"))
    raise DocumentError(node.start_mark.line + 1, f"{text!r} cannot be read as {_tag_of(node)}")


def _integer(text: str) -> int:
    plain = text.replace("_", "").lower()
    octal = re.fullmatch(r"([-+]?)0o?([0-7]+)", plain)
    return int(octal[1] + octal[2], 8) if octal else int(plain, 0)


def _expect_tag(node: yaml.Node, tag: str, kind: str) -> None:
    if node.tag != TAG + tag:
        raise DocumentError(node.start_mark.line + 1, f"a {kind} cannot be read as {_tag_of(node)}")


def _tag_of(node: yaml.Node) -> str:
    tag: str = node.tag
    return f"!!{tag.removeprefix(TAG)}" if tag.startswith(TAG) else tag
