"""The real model, and small data to train and evaluate on."""

from __future__ import annotations

import functools
import itertools
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import transformers
from transformers import BertConfig, BertModel, BertTokenizer

from project.sentiment import train
from project.sentiment.fitting import Recipe
from project.sentiment.model import SentimentClassifier

ROWS = [
    (1, "i like you"),
    (0, "i hate you"),
    (1, "a wonderful , moving film"),
    (0, "it is n't worth a minute"),
] * 4
SUBJECTS = ["i", "film", "it", "minute"]
OPINIONS = {"like you": 1, "hate you": 0, "a wonderful moving": 1, "is n't worth a": 0}


# The types of `pipeline` do not know the alias "sentiment-analysis", which everyone uses.
sentiment_pipeline = functools.partial(cast("Any", transformers.pipeline), "sentiment-analysis")


@pytest.fixture(autouse=True, scope="session")
def _begin_with_one_thread() -> None:
    """Before what is trained for the session."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_thread(_begin_with_one_thread: None) -> None:
    """For tiny models: a second thread mostly waits, on a busy machine for minutes.

    The backend of a test before has set the number of the cores.
    """
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shipped() -> SentimentClassifier:
    """The weights of this repository, loaded once."""
    return SentimentClassifier()


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled file of 16 rows."""
    path = tmp_path_factory.mktemp("data") / "labelled.tsv"
    lines = ["label\tsentence", *(f"{label}\t{text}" for label, text in ROWS)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled file of sentences, and of phrases that are parts of them."""
    path = tmp_path_factory.mktemp("data") / "sentences.tsv"
    rows = [
        f"{label}\t{subject} {opinion} ."
        for subject, (opinion, label) in itertools.product(SUBJECTS, OPINIONS.items())
    ]
    rows += [f"{label}\t{opinion}" for opinion, label in OPINIONS.items()]
    path.write_text("\n".join(["label\tsentence", *rows]) + "\n", encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model that knows the words of the rows."""
    words = sorted({word for _, text in ROWS for word in text.split()} | {"'", "n", "t"})
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    tokenizer = BertTokenizer(vocab=vocabulary)
    tokenizer.backend_tokenizer.enable_padding(length=32)
    path = tmp_path_factory.mktemp("models") / "base"
    tokenizer.save_pretrained(path)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def trained(base: Path, labelled: Path) -> Path:
    """A tiny trained model, not exported; to be read only."""
    output = base.with_name("trained")
    train.train(str(base), labelled, labelled, output, Recipe(epochs=1, batch_size=4))
    return output


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return shutil.copytree(trained, tmp_path / "model")
