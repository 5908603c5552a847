"""Texts for the student beside SST-2's: changed sentences, other spellings, other domains.

Changed sentences are labelled by the teacher, so they need not mean what they were made from.
Sources: word replacement by neighbours in an embedding (TinyBERT, Jiao et al. 2020, there with
BERT and GloVe), random deletion (EDA, Wei & Zou 2019), exchanged constituents.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import AutoModel

from project.sentiment.data import Example
from project.sentiment.fitting import load_tokenizer

DOMAINS = Path(__file__).with_name("domains.yaml")
REPLACED, DELETED = 0.3, 0.1  # shares of a sentence's words
NEIGHBOURS = 8
SPELLINGS = (  # SST-2's training file has the Penn Treebank's spelling, except for brackets
    (r"\s+(n't|'s|'re|'ve|'ll|'d|'m)\b", r"\1"),
    (r"\s+'(?!\S)", "'"),
    (r"\s+([.,!?;:)%])", r"\1"),
    (r"([($])\s+", r"\1"),
    (r"``\s*|\s*''", '"'),
    (r"`\s*", "'"),
    (r"\bcan not\b", "cannot"),
    (r"\b(gon|wan) na\b", r"\1na"),
)
ESCAPES = {"(": "-lrb-", ")": "-rrb-", "/": r"\/"}


def spell_naturally(text: str) -> str:
    """SST-2's tokens as people write them: ``do n't .`` becomes ``don't.`` ."""
    for pattern, replacement in SPELLINGS:
        text = re.sub(pattern, replacement, text)
    return text


def escape(text: str) -> str:
    """Brackets and slashes as the Penn Treebank writes them: ``( so )`` becomes ``-lrb- so -rrb-``.

    SST-2's dev file has them like this, and its training file does not.
    """
    for character, token in ESCAPES.items():
        text = text.replace(character, token)
    return text


class Neighbours:
    """Words that are near a word in the embedding of ``base``, whole vocabulary entries only."""

    def __init__(self, base: str, count: int = NEIGHBOURS) -> None:
        tokenizer = load_tokenizer(base)
        vocabulary = tokenizer.get_vocab()
        self._words = sorted(word for word in vocabulary if re.fullmatch(r"[a-z]{3,}", word))
        self._rows = {word: row for row, word in enumerate(self._words)}
        embedding = AutoModel.from_pretrained(base).get_input_embeddings().weight.detach()
        ids = torch.tensor([vocabulary[word] for word in self._words])
        self._vectors = torch.nn.functional.normalize(embedding[ids].float(), dim=1)
        self._count = count
        self._known: dict[str, list[str]] = {}

    def of(self, word: str) -> list[str]:
        """The nearest words; none for a word that the vocabulary has only in pieces."""
        if word not in self._rows:
            return []
        if word not in self._known:
            near = self._vectors @ self._vectors[self._rows[word]]
            best = near.topk(min(self._count + 1, len(near))).indices.tolist()[1:]
            self._known[word] = [self._words[row] for row in best]
        return self._known[word]


def replace_words(words: Sequence[str], neighbours: Neighbours, chance: random.Random) -> list[str]:
    """A share of the words becomes a neighbour, a smaller share is left out."""
    changed = []
    for word in words:
        if chance.random() < DELETED:
            continue
        near = neighbours.of(word) if chance.random() < REPLACED else []
        changed.append(chance.choice(near) if near else word)
    return changed or list(words)


class Constituents:
    """Phrases of SST-2, to be exchanged for others that begin alike and are about as long."""

    def __init__(self, phrases: Sequence[Example]) -> None:
        self._known = {tuple(each.text.split()) for each in phrases}
        self._alike: dict[tuple[str, int], list[tuple[str, ...]]] = defaultdict(list)
        for phrase in sorted(self._known):
            if 2 <= len(phrase) <= 12:
                self._alike[_kind(phrase)].append(phrase)

    def exchange(self, words: Sequence[str], chance: random.Random) -> list[str] | None:
        """One constituent replaced; None where the sentence has none that can be."""
        spans = [
            (start, end)
            for start in range(len(words))
            for end in range(start + 2, min(len(words), start + 12) + 1)
            if end - start < len(words) and tuple(words[start:end]) in self._known
        ]
        if not spans:
            return None
        start, end = chance.choice(spans)
        other = chance.choice(self._alike[_kind(tuple(words[start:end]))])
        return [*words[:start], *other, *words[end:]]


def _kind(phrase: tuple[str, ...]) -> tuple[str, int]:
    return phrase[0], len(phrase) // 3


def change_sentences(
    sentences: Sequence[Example], phrases: Sequence[Example], base: str, count: int, seed: int
) -> list[str]:
    """``count`` different texts: words replaced, constituents exchanged, two sentences joined."""
    chance = random.Random(seed)  # noqa: S311  (no secret)
    neighbours, constituents = Neighbours(base), Constituents(phrases)
    known = {each.text for each in phrases}
    changed: dict[str, None] = {}
    while len(changed) < count:
        words = chance.choice(sentences).text.split()
        kind = chance.random()
        if kind < 0.4:
            words = constituents.exchange(words, chance) or words
        elif kind < 0.45:
            words = [*words, *chance.choice(sentences).text.split()]
        if kind > 0.2:
            words = replace_words(words, neighbours, chance)
        text = " ".join(words)
        if text not in known:
            changed[text] = None
    return list(changed)


def domain_texts(count: int, seed: int, path: Path = DOMAINS) -> Iterator[tuple[str, float]]:
    """Texts of other domains, and the probability of POSITIVE that they were written for."""
    grammar = yaml.safe_load(path.read_text(encoding="utf-8"))
    chance = random.Random(seed)  # noqa: S311  (no secret)
    kinds = {"positive": 1.0, "negative": 0.0, "neutral": 0.5}
    for _ in range(count):
        kind = chance.choices(list(kinds), weights=(4, 4, 2))[0]
        pattern = chance.choice(grammar["patterns"][kind])
        text = pattern.format_map(_fill(grammar, chance))
        yield _vary(text, chance), kinds[kind]


def _fill(grammar: Mapping[str, Any], chance: random.Random) -> dict[str, str]:
    noun, other = chance.sample(chance.choice(list(grammar["domains"].values())), 2)
    lists = {**{name: grammar[name] for name in WORD_LISTS}, **grammar["fillers"]}
    return {"noun": noun, "other": other} | {
        name: chance.choice(words) for name, words in lists.items()
    }


WORD_LISTS = ("positive", "negative", "degree", "praise", "blame")


def _vary(text: str, chance: random.Random) -> str:
    """Typing errors in one text of ten."""
    if chance.random() > 0.1 or len(text) < 8:
        return text
    place = chance.randrange(1, len(text) - 2)
    return text[:place] + text[place + 1] + text[place] + text[place + 2 :]
