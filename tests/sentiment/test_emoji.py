"""Emoji are read as emoticons, by every reader of the tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from project.sentiment import emoji as module
from project.sentiment.emoji import teach_tokenizer
from project.sentiment.files import WEIGHTS

PAIRS = [
    ("what a day😊", "what a day :)"),
    ("my order 😡😡", "my order :( :("),
    ("thanks 👍🏽", "thanks :)"),
    ("i ❤️ it", "i :) it"),
    ("no emoji here", "no emoji here"),
]


@pytest.fixture
def taught(tmp_path: Path) -> Path:
    """A folder with the shipped tokenizer, taught."""
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(WEIGHTS / name, tmp_path / name)
    teach_tokenizer(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("text", "meaning"), PAIRS)
def test_read_as_emoticons(taught: Path, text: str, meaning: str) -> None:
    """The same tokens as the text with emoticons, in tokenizers and in transformers."""
    ours = Tokenizer.from_file(str(taught / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(taught)

    assert ours.encode(text).ids == ours.encode(meaning).ids
    assert theirs(text)["input_ids"] == ours.encode(text).ids
    assert set(theirs(text)) == {"input_ids", "token_type_ids", "attention_mask"}


def test_taught_once(taught: Path) -> None:
    """Teaching again changes nothing."""
    before = (taught / "tokenizer.json").read_bytes()

    assert module.main([str(taught)]) == 0

    assert (taught / "tokenizer.json").read_bytes() == before


def test_taught_after_a_training(taught: Path) -> None:
    """A training's end saves it under a class that earlier versions of transformers lack."""
    before = json.loads((taught / "tokenizer.json").read_bytes())
    AutoTokenizer.from_pretrained(taught).save_pretrained(taught)

    teach_tokenizer(taught)

    assert json.loads((taught / "tokenizer.json").read_bytes()) == before
    config = json.loads((taught / "tokenizer_config.json").read_bytes())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_signs_are_distinct() -> None:
    """No sign is read in two ways, or is a letter."""
    assert not set(module.HAPPY) & set(module.UNHAPPY)
    assert len(set(module.HAPPY)) == len(module.HAPPY)
    assert len(set(module.UNHAPPY)) == len(module.UNHAPPY)
    assert not [sign for sign in module.HAPPY + module.UNHAPPY if sign.isalnum()]


@pytest.mark.parametrize("arguments", [[], ["a", "b"], ["/nowhere"]])
def test_mistake_is_said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and what is wrong."""
    assert module.main(arguments) == 2
    assert capsys.readouterr().err.startswith("emoji: ")
