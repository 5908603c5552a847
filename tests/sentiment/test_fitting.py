"""Training runs: a run that was stopped ends as one that was not."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from project.sentiment.data import Example
from project.sentiment.fitting import (
    LengthBuckets,
    Recipe,
    encode_examples,
    fit,
    last_checkpoint,
    load_classifier,
    load_tokenizer,
    training_arguments,
)

WORDS = {"like": 1, "wonderful": 1, "hate": 0, "worth": 0}


def examples() -> list[Example]:
    """Sixty-four texts of one to nine words."""
    chance = random.Random(0)  # noqa: S311  (no secret)
    words = [chance.choice(list(WORDS)) for _ in range(64)]
    texts = [f"{word}{chance.randrange(9) * ' film'}" for word in words]
    return [Example(text, WORDS[word]) for text, word in zip(texts, words, strict=True)]


def trained(base: Path, recipe: Recipe, checkpoints: Path) -> dict[str, torch.Tensor]:
    """The weights at the end of a run that goes on from what is in ``checkpoints``."""
    tokenizer, model = load_tokenizer(str(base)), load_classifier(str(base), recipe)
    data = encode_examples(examples(), tokenizer, recipe.max_tokens)
    arguments = training_arguments(recipe, checkpoints, len(data))
    fit(model, tokenizer, data, data, arguments)
    return model.state_dict()


@pytest.mark.parametrize("steps", [16, 20], ids=["between epochs", "within an epoch"])
@pytest.mark.parametrize("bf16", [False, True])
def test_goes_on_as_the_same_run(base: Path, tmp_path: Path, steps: int, bf16: bool) -> None:
    """Weights after a stop are, bit by bit, those of a run without one; dropout included."""
    recipe = Recipe(epochs=2.0, batch_size=4, save_steps=steps, bf16=bf16, learning_rate=1e-3)
    whole = trained(base, recipe, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{steps}", stopped / f"checkpoint-{steps}")
    torch.manual_seed(99)  # another process has its own state

    resumed = trained(base, recipe, stopped)

    assert last_checkpoint(stopped) == stopped / "checkpoint-32"
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []


def test_attention_of_training_is_not_that_of_serving(base: Path, tmp_path: Path) -> None:
    """Training computes attention step by step; a reader of what is saved chooses for itself."""
    model = load_classifier(str(base), Recipe())
    assert model.config._attn_implementation == "eager"

    model.save_pretrained(tmp_path / "model")

    assert "attn" not in (tmp_path / "model" / "config.json").read_text("utf-8").replace(
        "attention", ""
    )
    served = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert served.config._attn_implementation == "sdpa"


def test_ended_run_stays_as_it_is(base: Path, tmp_path: Path) -> None:
    """A run that is gone on with after its end, within an epoch, has the weights of its end."""
    recipe = Recipe(epochs=1.5, batch_size=4, learning_rate=1e-3)

    once, again = (trained(base, recipe, tmp_path / "run") for _ in range(2))

    assert [name for name in once if not torch.equal(once[name], again[name])] == []


def batches_of(sampler: LengthBuckets, size: int) -> list[Sequence[int]]:
    """What a loader would make of ``sampler``."""
    indices = list(sampler)
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def test_buckets() -> None:
    """Every index once; a batch's lengths are alike, and batches of a length are not in a row."""
    chance = random.Random(1)  # noqa: S311  (no secret)
    lengths = [chance.randrange(3, 60) for _ in range(1003)]

    batches = batches_of(LengthBuckets(lengths, 10, seed=0), 10)

    assert sorted(index for batch in batches for index in batch) == list(range(1003))
    spreads = [max(map(lengths.__getitem__, b)) - min(map(lengths.__getitem__, b)) for b in batches]
    assert max(spreads[:-1]) < 10
    longest = [max(map(lengths.__getitem__, batch)) for batch in batches[:50]]
    assert longest != sorted(longest)
    assert longest != sorted(longest, reverse=True)


def test_order_follows_from_seed_and_epoch() -> None:
    """The same seed and epoch have the same order, whatever else draws; others have others."""
    orders = []
    for seed, epoch in [(0, 0), (0, 0), (0, 1), (1, 0)]:
        sampler = LengthBuckets(range(100), 5, seed)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
        torch.rand(1)

    assert orders[0] == orders[1]
    assert len({tuple(order) for order in orders}) == 3
