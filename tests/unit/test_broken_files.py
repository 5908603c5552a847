"""Tables of broken files: each mistake is found on its line, and said with its limit.

A block of a table takes lines (-) out of a good file, puts others (+) in, and says all that is
wrong then (=), as "line: key: message".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from project.asyncapi.config import ConfigError
from project.asyncapi.files import read_file
from tests.unit.cortex_files import API, CLUSTER, mistakes, spoiled

HERE = Path(__file__).parent


def blocks(name: str) -> list[str]:
    """The blocks of the table ``name``."""
    return (HERE / name).read_text(encoding="utf-8").strip().split("\n\n")


def check(block: str, good: str, folder: Path) -> None:
    """Spoil ``good`` as ``block`` says, and compare all that is found."""
    lines = block.splitlines()
    old, new = ("".join(f"{line[1:]}\n" for line in lines if line[0] == sign) for sign in "-+")

    expected = [line[2:] for line in lines if line[0] == "="]
    assert expected
    assert mistakes(folder, spoiled(good, old, new)) == expected


@pytest.mark.parametrize("block", blocks("broken_apis.txt"))
def test_mistake_in_an_api(tmp_path: Path, block: str) -> None:
    """Each is said, and nothing else."""
    check(block, API, tmp_path)


@pytest.mark.parametrize("block", blocks("broken_clusters.txt"))
def test_mistake_in_a_cluster(tmp_path: Path, block: str) -> None:
    """Each is said, and nothing else."""
    check(block, CLUSTER, tmp_path)


def test_tables_are_long() -> None:
    """No block got lost."""
    assert len(blocks("broken_apis.txt")) >= 110
    assert len(blocks("broken_clusters.txt")) >= 70


def test_all_mistakes_are_said(tmp_path: Path) -> None:
    """Not the first alone, as Cortex does, but each, in the order of the file."""
    text = spoiled(API, "max_concurrency: 4", "max_concurrency: 0")
    text = spoiled(text, "min_replicas: 1", "min_replica: 1")
    text = spoiled(text, "image: sentiment:1", "image: A")

    lines = [mistake.partition(":")[0] for mistake in mistakes(tmp_path, text)]
    assert lines == ["5", "8", "19"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["1: is empty"]),
        ("# nothing\n", ["1: is empty"]),
        ("null\n", ["1: must be a list of APIs, or the map that describes a cluster"]),
        ("sentiment\n", ["1: must be a list of APIs, or the map that describes a cluster"]),
        ("[]\n", ["1: must be a list of at least 1, not 0"]),
        ("- sentiment\n", ["1: [0]: must be a map, not 'sentiment'"]),
        ("-\n", ["1: [0]: must not be empty"]),
        ("name: a\nkind: AsyncAPI\n", ["1: must be a list of APIs: each begins with '- name:'"]),
        (API + API, ["24: [1].name: sentiment is used by more than one API"]),
        (
            API + API.replace("name: sentiment", "name: second"),
            ["46: [1].networking.endpoint: /sentiment is used by more than one API"],
        ),
    ],
)
def test_wrong_as_a_whole(tmp_path: Path, text: str, expected: list[str]) -> None:
    """A file that is no list of APIs, or one whose APIs collide."""
    assert mistakes(tmp_path, text) == expected


def test_too_many_node_groups(tmp_path: Path) -> None:
    """A cluster has a hundred groups and begins with two hundred instances at most."""
    group = "  - {name: g%d, instance_type: c5.large, min_instances: %d}\n"
    many = "".join(group % (i, 1) for i in range(101))
    large = "".join(group % (i, 5) for i in range(41))

    text = "region: us-east-1\nnode_groups:\n"
    assert mistakes(tmp_path, text + many) == [
        "2: node_groups: must be a list of at most 100, not 101"
    ]
    assert mistakes(tmp_path, text + large) == [
        "2: node_groups: min_instances must be at most 200 in all groups together, not 205"
    ]


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(["", "0", "-1", "1Ki", "٣", "$(X)", "a/b", "0.0.0.0/0", "1h", "x" * 2000]),
    st.text(max_size=5),
    st.lists(st.none() | st.integers(0, 9) | st.text(max_size=3), max_size=2),
    st.dictionaries(st.sampled_from(["name", "exec", "port", "", "é"]), st.none(), max_size=2),
)


def paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:  # noqa: ANN401
    """The way to everything in ``value``."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*above, key)
        if isinstance(inner, dict | list):
            yield from paths(inner, (*above, key))


@pytest.mark.parametrize("text", [API, CLUSTER], ids=["api", "cluster"])
@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_any_value_is_taken_or_refused(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    """Whatever stands in whatever place: it is valid, or it is said what is wrong and where."""
    value = yaml.safe_load(text)
    *way, last = data.draw(st.sampled_from(sorted(paths(value), key=repr)))
    place = value
    for key in way:
        place = place[key]
    place[last] = data.draw(VALUES)
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(value, sort_keys=False), encoding="utf-8")

    try:
        content = read_file(path).content
    except ConfigError as error:
        for line in str(error).splitlines():
            assert re.match(rf"{re.escape(str(path))}:\d+: ", line)
            assert "Input should" not in line
    else:
        assert content
