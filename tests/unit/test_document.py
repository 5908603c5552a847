"""YAML as Cortex reads it, with lines; and what is refused that Cortex would read by guessing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from project.asyncapi.document import Document, DocumentError, read_document

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab: #-'\"\\\n{}[]@~0", max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: ", None),
        ("a: ~", None),
        ("a: yes", True),
        ("a: Off", False),
        ("a: y", True),
        ("a: 'yes'", "yes"),
        ("a: 1_000", 1000),
        ("a: 0x1F", 31),
        ("a: 0b11", 3),
        ("a: 017", 15),
        ("a: -0o17", -15),
        ("a: 1e3", 1000.0),
        ("a: .5", 0.5),
        ("a: -.inf", float("-inf")),
        ("a: !!str 5", "5"),
        ("a: !!float 5", 5.0),
        ("a: 2026-11-27", "2026-11-27"),
        ("a: 1:30", "1:30"),
        ("a: 1.2.3", "1.2.3"),
        ("a: 25%", "25%"),
        ("a: |\n  b\n  c\n", "b\nc\n"),
    ],
)
def test_scalars_are_cortex_s(text: str, value: object) -> None:
    """What a scalar is: go-yaml's rules, not PyYAML's."""
    read = read_document(text).value["a"]

    assert (type(read), read) == (type(value), value)


@given(PLAIN)
@settings(deadline=timedelta(seconds=5))
def test_what_pyyaml_writes_is_read(value: Any) -> None:  # noqa: ANN401 -- any YAML value
    """A document that was made from a value is that value again."""
    assert read_document(yaml.safe_dump({"a": value}, allow_unicode=True)).value == {"a": value}


def test_lines_and_texts() -> None:
    """Every key and item has its line, and what is no string its text."""
    document = read_document("# one\n- a: 1.10\n  b:\n    - x\n    - {c: yes}\n")

    assert document == Document(
        [{"a": 1.1, "b": ["x", {"c": True}]}],
        {
            (): 2,
            (0,): 2,
            (0, "a"): 2,
            (0, "b"): 3,
            (0, "b", 0): 4,
            (0, "b", 1): 5,
            (0, "b", 1, "c"): 5,
        },
        {(0, "a"): "1.10", (0, "b", 1, "c"): "yes"},
    )
    assert document.line((0, "b", 1, "d", 7)) == 5


def test_anchors_are_written_out() -> None:
    """An alias is what its anchor is, on the anchor's lines; << adds keys, and own keys win."""
    document = read_document(
        "base: &base\n  cpu: 1\n  mem: 2\none: *base\ntwo:\n  <<: *base\n  mem: 3\n"
        "three:\n  <<: [{cpu: 4}, *base]\n"
    )

    assert document.value["one"] == {"cpu": 1, "mem": 2}
    assert document.value["two"] == {"cpu": 1, "mem": 3}
    assert document.value["three"] == {"cpu": 4, "mem": 2}
    assert document.line(("one", "cpu")) == 2
    assert document.line(("two", "cpu")) == 2
    assert document.line(("two", "mem")) == 7


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' is given twice, first on line 1"),
        ("a:\n\t- b\n", 2, "a tab cannot indent YAML: use spaces"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins here: Cortex would read the first"),
        ("a: [1\n", 2, "is not YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: b: c\n", 1, "is not YAML: mapping values are not allowed here"),
        ("a: *b\n", 1, "is not YAML: found undefined alias 'b'"),
        ("a: @b\n", 1, "is not YAML: while scanning for the next token, found character '@'"),
        ("\na: &a [*a]\n", 2, "contains itself"),
        ("8: a\n", 1, "a key must be a string, not 8: put it in quotes"),
        ("yes: a\n", 1, "a key must be a string, not yes: put it in quotes"),
        ("[a]: b\n", 1, "a key must be a string, not a list or map: put it in quotes"),
        ("a: !!int b\n", 1, "'b' cannot be read as !!int"),
        ("a: !!bool b\n", 1, "'b' cannot be read as !!bool"),
        ("a: !!binary aGk=\n", 1, "'aGk=' cannot be read as !!binary"),
        ("a: !Ref b\n", 1, "'b' cannot be read as !Ref"),
        ("a: !!set {b}\n", 1, "a map cannot be read as !!set"),
        ("a: !!python/object/apply:os.getcwd []\n", 1, "a list cannot be read as !!python"),
        ("a:\n  <<: b\n", 2, "<< must name a map"),
        ("a: 'b\x00'\n", 1, "the character U+0000 is not allowed"),
        ("[" * 3000, 1, "is nested too deeply"),
    ],
)
def test_refused_document(text: str, line: int, message: str) -> None:
    """The line and the reason."""
    with pytest.raises(DocumentError) as caught:
        read_document(text)

    assert str(caught.value).startswith(message)
    assert caught.value.line == line


def test_growing_aliases_are_refused() -> None:
    """Twelve lines that would be a billion values cost nothing."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]

    with pytest.raises(DocumentError, match="has more than 100000 values"):
        read_document("\n".join(lines))
