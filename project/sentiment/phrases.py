"""Which texts of SST-2's training file are whole sentences, and a slice of them to choose by.

GLUE ships the constituents of the parsed sentences as rows of their own ("a gorgeous film" beside
the sentence that holds it), so a random slice of rows would be held back in name only.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from project.sentiment.data import Example

HELD_BACK = 800
"""Whole sentences that no training set holds: an eighth of them."""

SENTENCE_ENDS = (".", "!", "?", "''", "...")


@dataclass(frozen=True, slots=True)
class Split:
    """``train`` holds no phrase that occurs in ``held_back``'s sentences only."""

    train: list[Example]
    held_back: list[Example]


def hold_back(examples: Sequence[Example], sentences: int, seed: int = 0) -> Split:
    """Hold ``sentences`` whole sentences back, with every phrase that is in no other sentence.

    A phrase that another sentence has too ("a good film") stays in the training part, as such
    phrases of SST-2's dev set do.

    Raises:
        ValueError: there are not more than ``sentences`` whole sentences.
    """
    maximal = maximal_phrases(examples)
    whole = [each for each in maximal if each.text.split()[-1] in SENTENCE_ENDS]
    if len(whole) <= sentences:
        raise ValueError(f"{len(whole)} whole sentences, and {sentences} to hold back")
    chance = random.Random(seed)  # noqa: S311  (no secret)
    held_back = chance.sample(whole, sentences)
    held_texts = {each.text for each in held_back}
    kept = _spans(each.text for each in maximal if each.text not in held_texts)
    lost = _spans(held_texts)
    train = [each for each in examples if _key(each) in kept or _key(each) not in lost]
    return Split(train, held_back)


def maximal_phrases(examples: Iterable[Example]) -> list[Example]:
    """The examples that are part of no other one: whole sentences, and what is left of others."""
    seen: set[tuple[str, ...]] = set()
    found = []
    for example in sorted(examples, key=lambda each: -len(each.text.split())):
        if _key(example) not in seen:
            found.append(example)
            seen.update(_spans([example.text]))
    return found


def _key(example: Example) -> tuple[str, ...]:
    return tuple(example.text.split())


def _spans(texts: Iterable[str]) -> set[tuple[str, ...]]:
    return {span for text in texts for span in _spans_of(tuple(text.split()))}


def _spans_of(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for start in range(len(words)):
        for end in range(start + 1, len(words) + 1):
            yield words[start:end]
