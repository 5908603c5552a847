"""Texts for the student beside SST-2's."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from project.sentiment.augment import (
    DOMAINS,
    Constituents,
    Neighbours,
    change_sentences,
    domain_texts,
    replace_words,
    spell_naturally,
)
from project.sentiment.data import Example

SUITE = Path(__file__).parents[1] / "behaviour" / "suite.yaml"


def seeded(seed: int) -> random.Random:
    """A source of chance that a test can repeat."""
    return random.Random(seed)  # noqa: S311  (no secret)


@pytest.mark.parametrize(
    ("treebank", "natural"),
    [
        ("it is n't worth it , is it ?", "it isn't worth it, is it?"),
        ("we ca n't , they 're `` great '' .", "we can't, they're \"great\"."),
        ("( 90 minutes ) of it 's $ 10 .", "(90 minutes) of it's $10."),
    ],
)
def test_natural_spelling(treebank: str, natural: str) -> None:
    """Contractions, punctuation and quotes are written as people write them."""
    assert spell_naturally(treebank) == natural


def test_neighbours(base: Path) -> None:
    """A word's neighbours are other words of the vocabulary; an unknown word has none."""
    neighbours = Neighbours(str(base), count=3)

    near = neighbours.of("film")
    assert len(near) == len(set(near) - {"film"}) == 3
    assert neighbours.of("film") == near
    assert neighbours.of("xylophone") == []


def test_replaced_words(base: Path) -> None:
    """Some words are replaced or left out, and something is always left."""
    neighbours, chance = Neighbours(str(base)), seeded(0)
    words = ["a", "wonderful", ",", "moving", "film"]

    changed = [replace_words(words, neighbours, chance) for _ in range(50)]

    assert all(changed)
    assert min(map(len, changed)) < len(words) == max(map(len, changed))
    assert len({tuple(each) for each in changed}) > 10
    assert all(replace_words(["film"], neighbours, chance) for _ in range(50))


def test_exchanged_constituents() -> None:
    """A constituent is exchanged for one that begins alike; none is found where there is none."""
    constituents = Constituents([Example("a fine cast", 1), Example("a weak plot", 0)])

    words = ["it", "has", "a", "fine", "cast", "."]
    seen = {" ".join(constituents.exchange(words, seeded(seed)) or []) for seed in range(20)}

    assert seen == {"it has a fine cast .", "it has a weak plot ."}
    assert constituents.exchange(["nothing", "here"], seeded(0)) is None


def test_changed_sentences(base: Path) -> None:
    """As many different texts as asked for, none of them a known one, the same every time."""
    known = [Example("a wonderful , moving film", 1), Example("it is n't worth a minute", 0)]

    texts = change_sentences(known, known, str(base), 40, seed=1)

    assert len(set(texts)) == len(texts) == 40
    assert not {each.text for each in known} & set(texts)
    assert texts == change_sentences(known, known, str(base), 40, seed=1)


def test_domain_texts() -> None:
    """All patterns can be filled, and the kinds have the labels that they were written for."""
    texts = dict(domain_texts(4000, seed=0))

    assert set(texts.values()) == {0.0, 0.5, 1.0}
    assert not [text for text in texts if "{" in text or "}" in text]


def test_suite_is_not_trained_on() -> None:
    """No pattern is a template of the behavioural suite, and no text one of its texts."""
    patterns = yaml.safe_load(DOMAINS.read_text(encoding="utf-8"))["patterns"]
    suite = yaml.safe_load(SUITE.read_text(encoding="utf-8"))["capabilities"]

    trained = {pattern for kind in patterns.values() for pattern in kind}
    tested = {
        template.lower()
        for groups in suite.values()
        for group in groups
        for template in [*group.get("templates", ()), group.get("before"), group.get("after")]
        if template
    }
    assert len(trained) > 50
    assert len(tested) > 50
    assert not {_shape(each) for each in trained} & {_shape(each) for each in tested}


def _shape(template: str) -> str:
    """A template with its slots made alike, and its full stop dropped."""
    slots = {"{noun}": "{thing}", "{positive}": "{good}", "{negative}": "{bad}"}
    for ours, theirs in slots.items():
        template = template.replace(ours, theirs)
    return template.rstrip(".!")
