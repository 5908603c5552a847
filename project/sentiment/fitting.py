"""One training run with transformers' Trainer: resumable, mixed precision, bucketed by length."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_callback import TrainerState

from project.sentiment.data import LABELS, Example
from project.sentiment.runs import digest

logger = logging.getLogger(__name__)

MIN_STEPS = 10  # between evaluations
POOL = 50  # batches whose texts are sorted by length together
STATE_FILE = "trainer_state.json"  # the last file of a checkpoint that Trainer writes


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters of one run.

    Attributes:
        warmup: share of all steps, from which on the learning rate falls to 0.
        frozen_layers: how many of the lowest layers stay as they are, with the embeddings; None:
            everything is trained.
        dropout: of hidden states and attention; None: the base model's.
        bf16: autocast the matrix products: faster on CPUs and GPUs that have it.
        save_steps: between checkpoints.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: float = 3.0
    warmup: float = 0.06
    label_smoothing: float = 0.05
    max_tokens: int = 128
    max_grad_norm: float = 1.0
    evaluations_per_epoch: int = 5
    seed: int = 0
    bf16: bool = False
    frozen_layers: int | None = None
    dropout: float | None = None
    save_steps: int = 100


class EncodedDataset(torch.utils.data.Dataset[dict[str, object]]):
    """Texts as token ids, unpadded: the collator pads each batch to its own longest text.

    Args:
        labels: class indices, or a target per class.
    """

    def __init__(
        self,
        texts: Sequence[str],
        labels: Sequence[object],
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
    ) -> None:
        encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens)
        self._rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": label}
            for ids, mask, label in zip(
                encoded["input_ids"], encoded["attention_mask"], labels, strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self._rows[index]

    def digest(self) -> str:
        """Of the token ids and the labels: the same rows in the same order have the same one."""
        return digest([[row["input_ids"], row["labels"]] for row in self._rows])

    def lengths(self) -> list[int]:
        """Of every text, in tokens."""
        return [len(row["input_ids"]) for row in self._rows]


class LengthBuckets(torch.utils.data.Sampler[int]):
    """Indices in another order every epoch, of which each batch's are of similar lengths.

    The order follows from ``seed`` and the epoch alone: an epoch that is gone on with has the order
    it was begun with. (Trainer's own sampler draws it from the global source of chance, which is
    in the state of the last checkpoint only after the order was drawn.)
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which order to give next; Trainer calls it."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        chance = np.random.default_rng((self._seed, self._epoch))
        order = chance.permutation(len(self._lengths)).tolist()
        pool = POOL * self._batch_size
        for start in range(0, len(order), pool):
            indices = sorted(order[start : start + pool], key=self._lengths.__getitem__)
            batches = [
                indices[first : first + self._batch_size]
                for first in range(0, len(indices), self._batch_size)
            ]
            # Only whole batches change places: the rest would shift the bounds of those behind it.
            whole = len(indices) // self._batch_size
            for number in (*chance.permutation(whole).tolist(), *range(whole, len(batches))):
                yield from batches[number]


class ResumableTrainer(Trainer):
    """A Trainer whose run is the same whether it was stopped or not."""

    def _get_train_sampler(
        self, train_dataset: torch.utils.data.Dataset[Any] | None = None
    ) -> torch.utils.data.Sampler[int]:
        dataset: Any = train_dataset or self.train_dataset
        return LengthBuckets(dataset.lengths(), self.args.train_batch_size, self.args.seed)


def encode_examples(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> EncodedDataset:
    """The dataset of ``examples``."""
    texts = [example.text for example in examples]
    return EncodedDataset(texts, [example.label for example in examples], tokenizer, max_tokens)


def load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hub id or a local folder, without padding or truncation of its own."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    # The sentence-embedding base stores its own padding to 128 tokens: every caller of the saved
    # tokenizer would pay for it in every text.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def load_classifier(base: str, recipe: Recipe) -> PreTrainedModel:
    """An encoder with a new classification head, in single precision."""
    torch.manual_seed(recipe.seed)
    dropout = {}
    if recipe.dropout is not None:
        dropout = {
            "hidden_dropout_prob": recipe.dropout,
            "attention_probs_dropout_prob": recipe.dropout,
        }
    model: PreTrainedModel = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        dtype=torch.float32,
        # Of short texts on a CPU in bfloat16, SDPA's backward pass is the slower one.
        attn_implementation="eager",
        **dropout,
    )
    if recipe.frozen_layers is not None:
        freeze(model, recipe.frozen_layers)
    return model


def freeze(model: PreTrainedModel, layers: int) -> None:
    """Stop the training of the embeddings and of the lowest ``layers`` layers."""
    encoder: Any = model.base_model
    for module in (encoder.embeddings, *encoder.encoder.layer[:layers]):
        module.requires_grad_(requires_grad=False)


def training_arguments(
    recipe: Recipe, checkpoints: Path, rows: int, *, keep_best: bool = False
) -> TrainingArguments:
    """What Trainer needs to know of ``recipe``.

    Args:
        keep_best: end with the checkpoint of the best accuracy, not with the last one.
    """
    steps_per_epoch = math.ceil(rows / recipe.batch_size)
    total_steps = math.ceil(steps_per_epoch * recipe.epochs)
    evaluate_every = max(MIN_STEPS, steps_per_epoch // recipe.evaluations_per_epoch)
    evaluate_every = min(evaluate_every, total_steps)
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        train_sampling_strategy="group_by_length",  # of the evaluations
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(total_steps * recipe.warmup),
        label_smoothing_factor=recipe.label_smoothing,
        max_grad_norm=recipe.max_grad_norm,
        use_cpu=not torch.cuda.is_available(),
        bf16=recipe.bf16,
        eval_strategy="steps",
        eval_steps=evaluate_every,
        save_strategy="steps",
        save_steps=evaluate_every if keep_best else recipe.save_steps,
        save_total_limit=2,
        save_only_model=keep_best,  # such a run is short, and never gone on with
        load_best_model_at_end=keep_best,
        metric_for_best_model="accuracy" if keep_best else None,
        logging_steps=25,
        dataloader_pin_memory=False,
        disable_tqdm=True,
        seed=recipe.seed,
        report_to="none",
    )


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train_set: EncodedDataset,
    eval_set: EncodedDataset,
    arguments: TrainingArguments,
    trainer_class: type[ResumableTrainer] = ResumableTrainer,
) -> TrainerState:
    """Train ``model`` in place, from the last whole checkpoint in the output folder on."""
    trainer = trainer_class(
        model=model,
        args=arguments,
        train_dataset=train_set,
        eval_dataset=eval_set,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=measure,
    )
    last = last_checkpoint(Path(str(arguments.output_dir)))
    logger.info("from checkpoint %s", last)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    trainer.evaluate()
    return trainer.state


def save_half(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    """Write the model in half precision, to be computed with in single precision."""
    model.half().save_pretrained(output)  # type: ignore[no-untyped-call]
    (output / "model.safetensors").chmod(0o644)  # safetensors writes 0600: other users serve it
    # The tensors are stored in half precision to halve the download; they are meant to be computed
    # with in single precision, and `from_pretrained` follows the configuration.
    model.config.dtype = torch.float32
    model.config.save_pretrained(output)
    tokenizer.save_pretrained(output)


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end."""
    states = folder.glob(f"checkpoint-*/{STATE_FILE}")
    whole = [path.parent for path in states if _is_json(path)]
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True


def measure(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and mean negative log-likelihood in nats."""
    logits = np.asarray(prediction.predictions, np.float64)
    labels = np.asarray(prediction.label_ids)
    if labels.ndim == 2:
        labels = labels.argmax(axis=-1)
    log_sums = np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1)) + logits.max(-1)
    rows = np.arange(len(labels))
    return {
        "accuracy": float(np.mean(logits.argmax(axis=-1) == labels)),
        "nll": float(np.mean(log_sums - logits[rows, labels])),
    }
