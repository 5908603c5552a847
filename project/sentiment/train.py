r"""Fine-tunes an encoder for two sentiment labels: the recipe behind ``weights/``.

    python -m project.sentiment.train --base sentence-transformers/all-MiniLM-L6-v2 \
        --train sst2/train.tsv --dev sst2/dev.tsv --output weights

Full fine-tuning with AdamW (Loshchilov & Hutter 2019), linear warm-up and decay, label smoothing
and batches bucketed by length. The checkpoint with the best accuracy on ``--dev`` is kept, and
stored in half precision.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

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
    set_seed,
)

from project.sentiment.data import LABELS, DataError, Example, read_examples

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """The hyper-parameters; the shipped weights have the defaults, and ``bf16``."""

    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    batch_size: int = 64
    epochs: float = 3.0
    warmup: float = 0.06  # share of all steps
    label_smoothing: float = 0.05
    max_tokens: int = 128
    max_grad_norm: float = 1.0
    evaluations_per_epoch: int = 5
    seed: int = 0
    bf16: bool = False  # autocast the matrix products: faster on CPUs and GPUs that have it


class EncodedDataset(torch.utils.data.Dataset[dict[str, object]]):
    """Examples as token ids, unpadded: the collator pads each batch to its own longest text."""

    def __init__(
        self, examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        texts = [example.text for example in examples]
        encoded = tokenizer(texts, truncation=True, max_length=max_tokens)
        self._rows = [
            {"input_ids": ids, "attention_mask": mask, "labels": example.label}
            for ids, mask, example in zip(
                encoded["input_ids"], encoded["attention_mask"], examples, strict=True
            )
        ]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, object]:
        return self._rows[index]


def train(base: str, train_file: Path, dev_file: Path, output: Path, recipe: Recipe) -> float:
    """Fine-tune ``base`` and write the best checkpoint to ``output``.

    Args:
        base: a Hub id or a local folder.
        output: a folder; made if it is missing.

    Returns:
        Accuracy on ``dev_file`` of the checkpoint kept, 0 to 1.

    Raises:
        DataError: a file is not a labelled file.
    """
    train_examples, dev_examples = read_examples(train_file), read_examples(dev_file)
    set_seed(recipe.seed)
    tokenizer = _load_tokenizer(base)
    model = AutoModelForSequenceClassification.from_pretrained(
        base,
        num_labels=len(LABELS),
        id2label=dict(enumerate(LABELS)),
        label2id={label: index for index, label in enumerate(LABELS)},
        dtype=torch.float32,
    )
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as checkpoints:
        trainer = Trainer(
            model=model,
            args=_arguments(recipe, checkpoints, len(train_examples)),
            train_dataset=EncodedDataset(train_examples, tokenizer, recipe.max_tokens),
            eval_dataset=EncodedDataset(dev_examples, tokenizer, recipe.max_tokens),
            data_collator=DataCollatorWithPadding(tokenizer),
            compute_metrics=_accuracy,
        )
        trainer.train()
    _save(model, tokenizer, output)
    best = trainer.state.best_metric
    return float(best) if best is not None else math.nan


def _load_tokenizer(base: str) -> PreTrainedTokenizerBase:
    tokenizer = AutoTokenizer.from_pretrained(base)
    # The sentence-embedding base stores its own padding to 128 tokens: every caller of the saved
    # tokenizer would pay for it in every text.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    return tokenizer


def _arguments(recipe: Recipe, checkpoints: str, rows: int) -> TrainingArguments:
    steps_per_epoch = math.ceil(rows / recipe.batch_size)
    total_steps = math.ceil(steps_per_epoch * recipe.epochs)
    evaluate_every = max(1, steps_per_epoch // recipe.evaluations_per_epoch)
    return TrainingArguments(
        output_dir=checkpoints,
        per_device_train_batch_size=recipe.batch_size,
        per_device_eval_batch_size=recipe.batch_size,
        train_sampling_strategy="group_by_length",
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
        save_steps=evaluate_every,
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        logging_steps=evaluate_every,
        dataloader_pin_memory=False,
        seed=recipe.seed,
        report_to="none",
    )


def _accuracy(prediction: EvalPrediction) -> dict[str, float]:
    hits = np.argmax(prediction.predictions, axis=-1) == prediction.label_ids
    return {"accuracy": float(np.mean(hits))}


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, output: Path) -> None:
    model.half().save_pretrained(output)  # type: ignore[no-untyped-call]
    (output / "model.safetensors").chmod(0o644)  # safetensors writes 0600: other users serve it
    # The tensors are stored in half precision to halve the download; they are meant to be computed
    # with in single precision, and `from_pretrained` follows the configuration.
    model.config.dtype = torch.float32
    model.config.save_pretrained(output)
    tokenizer.save_pretrained(output)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m project.sentiment.train", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--base", required=True, help="Hub id or local folder of the base model")
    parser.add_argument("--train", required=True, type=Path, help="labelled file to train on")
    parser.add_argument("--dev", required=True, type=Path, help="labelled file to choose by")
    parser.add_argument("--output", required=True, type=Path, help="folder for the weights")
    default = Recipe()
    parser.add_argument("--epochs", type=float, default=default.epochs)
    parser.add_argument("--learning-rate", type=float, default=default.learning_rate)
    parser.add_argument("--batch-size", type=int, default=default.batch_size)
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--bf16", action="store_true", help="mixed precision with bfloat16")
    options = parser.parse_args(argv)
    recipe = Recipe(
        epochs=options.epochs,
        learning_rate=options.learning_rate,
        batch_size=options.batch_size,
        seed=options.seed,
        bf16=options.bf16,
    )
    try:
        accuracy = train(options.base, options.train, options.dev, options.output, recipe)
    except DataError as error:
        print(f"train: {error}", file=sys.stderr)
        return 2
    print(f"best accuracy on {options.dev}: {accuracy:.4f}; weights in {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
