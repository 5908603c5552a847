"""Whole sentences of SST-2, and what is held back of them."""

from __future__ import annotations

import pytest

from project.sentiment.data import Example
from project.sentiment.phrases import hold_back, maximal_phrases

SENTENCES = [
    Example("a good film .", 1),
    Example("a good film that drags .", 0),
    Example("no fun at all .", 0),
]
PHRASES = [
    Example("a good film", 1),
    Example("film that drags", 0),
    Example("fun", 1),
    Example("no fun at all", 0),
]


def test_maximal_phrases() -> None:
    """Only what is part of no other example is found; words in another order are no part."""
    other = Example("film a good", 1)

    found = maximal_phrases([*PHRASES, *SENTENCES, other])

    assert sorted(each.text for each in found) == sorted(each.text for each in [*SENTENCES, other])


def test_parts_of_held_back_sentences() -> None:
    """No phrase of a held-back sentence is trained on, unless another sentence has it."""
    for seed in range(20):
        split = hold_back([*PHRASES, *SENTENCES], 1, seed)

        (held,) = split.held_back
        trained = {each.text for each in split.train}
        assert held.text not in trained
        assert "a good film" in trained
        assert ("film that drags" in trained) is (held.text != "a good film that drags .")
        assert ({"fun", "no fun at all"} <= trained) is (held.text != "no fun at all .")


def test_split_is_repeatable() -> None:
    """The same seed holds the same sentences back; another one holds others back."""
    assert hold_back(SENTENCES, 2, 5) == hold_back(SENTENCES, 2, 5)
    assert len({hold_back(SENTENCES, 1, seed).held_back[0] for seed in range(20)}) > 1


def test_too_few_sentences() -> None:
    """Nothing would be left to train on: an error with both numbers."""
    with pytest.raises(ValueError, match="3 whole sentences, and 3 to hold back"):
        hold_back([*PHRASES, *SENTENCES], 3)
