r"""Fine-tunes an encoder for two sentiment labels, plainly: what a distilled one is compared with.

    python -m project.sentiment.train --base sentence-transformers/all-MiniLM-L6-v2 \
        --train sst2/train.tsv --dev sst2/dev.tsv --output weights

Full fine-tuning with AdamW (Loshchilov & Hutter 2019), linear warm-up and decay, label smoothing
and batches bucketed by length. The checkpoint with the best accuracy on ``--dev`` is kept, and
stored in half precision.
"""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from transformers import set_seed

from project.sentiment.data import DataError, read_examples
from project.sentiment.fitting import (
    Recipe,
    encode_examples,
    fit,
    load_classifier,
    load_tokenizer,
    save_half,
    training_arguments,
)
from project.sentiment.runs import RUN_FILE, held_back_record, model_digest, write_record


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
    tokenizer, model = load_tokenizer(base), load_classifier(base, recipe)
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as checkpoints:
        arguments = training_arguments(
            recipe, Path(checkpoints), len(train_examples), keep_best=True
        )
        state = fit(
            model,
            tokenizer,
            encode_examples(train_examples, tokenizer, recipe.max_tokens),
            encode_examples(dev_examples, tokenizer, recipe.max_tokens),
            arguments,
        )
    save_half(model, tokenizer, output)
    record = {"base": model_digest(base), **held_back_record([]), **asdict(recipe)}
    write_record(output / RUN_FILE, record)
    return float(state.best_metric) if state.best_metric is not None else math.nan


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
