"""Tiny models of several architectures with random weights, as they lie on the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    DistilBertConfig,
    DistilBertForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from project.sentiment.golden import GOLDEN_TEXTS

POSITIONS = 34  # in the tables
SPREAD = 0.4  # of the weights: with the usual 0.02 every text has the same answer
WORDS = sorted({word for text in GOLDEN_TEXTS for word in text.replace(",", " , ").split()})
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": POSITIONS,
    "initializer_range": SPREAD,
}


def roberta(folder: Path, **config: Any) -> Path:  # noqa: ANN401  (what a configuration takes)
    """Byte pairs in two files; positions from 2."""
    folder.mkdir()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    pairs = ByteLevelBPETokenizer()
    pairs.train_from_iterator(GOLDEN_TEXTS, 300, special_tokens=special, show_progress=False)
    pairs.save_model(str(folder))
    sizes = {**SIZES, "vocab_size": pairs.get_vocab_size(), **config}
    return _save(folder, "Roberta", RobertaForSequenceClassification, RobertaConfig(**sizes))


def distilbert(folder: Path, **config: Any) -> Path:  # noqa: ANN401
    """Words in one file; positions from 0; no types of tokens."""
    folder.mkdir()
    count = _write_words(folder, ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return _save(
        folder,
        "DistilBert",
        DistilBertForSequenceClassification,
        DistilBertConfig(
            vocab_size=count, dim=32, n_layers=2, n_heads=2, hidden_dim=64,
            max_position_embeddings=POSITIONS, initializer_range=SPREAD, **config,
        ),
    )  # fmt: skip


def mpnet(folder: Path, **config: Any) -> Path:  # noqa: ANN401
    """Words in one file; positions from 2, and relative ones."""
    folder.mkdir()
    count = _write_words(folder, ["<s>", "<pad>", "</s>", "[UNK]", "<mask>"])
    sizes = {**SIZES, "vocab_size": count, **config}
    return _save(folder, "MPNet", MPNetForSequenceClassification, MPNetConfig(**sizes))


def _write_words(folder: Path, special: list[str]) -> int:
    lines = [*special, *WORDS]
    (folder / "vocab.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


def _save(folder: Path, name: str, kind: type[PreTrainedModel], config: Any) -> Path:  # noqa: ANN401
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    tokenizer = json.dumps({"tokenizer_class": f"{name}Tokenizer"})
    (folder / "tokenizer_config.json").write_text(tokenizer, encoding="utf-8")
    return folder
