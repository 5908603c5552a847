"""Texts for the student beside SST-2's."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import yaml

from project.sentiment.augment import (
    DOMAINS,
    WORD_LISTS,
    Constituents,
    Neighbours,
    change_sentences,
    domain_texts,
    escape,
    replace_words,
    spell_naturally,
)
from project.sentiment.behaviour import read_suite
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
        ("you can not but like it .", "you cannot but like it."),
        (
            "you 're gon na like ` it ' , the girls ' film",
            "you're gonna like 'it', the girls' film",
        ),
        ("( 90 minutes ) of it 's $ 10 .", "(90 minutes) of it's $10."),
    ],
)
def test_natural_spelling(treebank: str, natural: str) -> None:
    """Contractions, punctuation and quotes are written as people write them."""
    assert spell_naturally(treebank) == natural


def test_treebank_spelling() -> None:
    """Brackets and slashes are written as SST-2's dev file has them."""
    assert escape("( 90 minutes ) and/or more .") == r"-lrb- 90 minutes -rrb- and\/or more ."


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


def test_no_text_of_the_suite_is_drawn() -> None:
    """Whatever the seed, no text of another domain is one of the suite's, by its words."""
    grammar = yaml.safe_load(DOMAINS.read_text(encoding="utf-8"))
    nouns = [noun for domain in grammar["domains"].values() for noun in domain]
    words = {"noun": nouns, "other": nouns, **grammar["fillers"]}
    words |= {name: grammar[name] for name in WORD_LISTS}
    choices = {name: "|".join(map(plain, listed)) for name, listed in words.items()}
    patterns = [
        re.compile(re.sub(r"\{(\w+)\}", lambda slot: f"(?:{choices[slot[1]]})", plain(pattern)))
        for listed in grammar["patterns"].values()
        for pattern in listed
    ]

    tested = {plain(text) for case in read_suite(SUITE) for text in case.texts} - {""}

    assert len(tested) > 500
    drawn = {plain(text) for text, _ in domain_texts(2000, seed=0)}
    unspoilt = [text for text in drawn if any(each.fullmatch(text) for each in patterns)]
    assert len(unspoilt) > 0.85 * len(drawn)  # the others have typing errors: the test's own test
    assert not drawn & tested
    assert not [text for text in tested if any(each.fullmatch(text) for each in patterns)]


def plain(text: str) -> str:
    """Words and slots alone, in lower case."""
    return " ".join(re.sub(r"[^a-z0-9{} ]", "", text.lower()).split())


def test_no_template_of_the_suite_is_a_pattern() -> None:
    """No pattern of another domain is a template of the suite with other words in it."""
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
