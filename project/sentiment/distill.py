r"""Distils a large fine-tuned encoder into a small one.

    python -m project.sentiment.distill teacher --base all-mpnet-base-v2 --train train.tsv \
        --output teacher
    python -m project.sentiment.distill label --train train.tsv --base all-MiniLM-L6-v2 \
        --teacher teacher --output soft.tsv
    python -m project.sentiment.distill label --train train.tsv --base all-MiniLM-L6-v2 \
        --teacher teacher --texts sentences.txt --output soft-1.tsv
    python -m project.sentiment.distill warm-up --base all-MiniLM-L6-v2 --train train.tsv \
        --output warm
    python -m project.sentiment.distill student --base warm --train train.tsv \
        --soft soft.tsv soft-1.tsv --seed 0 --output student-0
    python -m project.sentiment.distill average student-0 student-1 student-2 --output student
    python -m project.sentiment.evaluate student --train train.tsv
    python -m project.sentiment.calibration student --train train.tsv --output weights
    python -m project.sentiment.emoji weights
    python -m project.sentiment.export weights

The card of the shipped weights has the commands, seeds and times that made them. Every command goes
on where it was stopped when it is run again, to the end that it would have had; with other data or
settings it is refused. ``HELD_BACK`` whole sentences, with the phrases that are in no other
sentence, are in no training set: they are what to choose and to calibrate by. Sources: Hinton et
al. 2015 (soft targets), Jiao et al. 2020 (TinyBERT: augmentation labelled by the teacher),
Wortsman et al. 2022 (averages of weights).
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerBase

from project.sentiment.augment import change_sentences, domain_texts, escape, spell_naturally
from project.sentiment.data import DataError, Example, read_examples, read_texts
from project.sentiment.files import ModelError
from project.sentiment.fitting import (
    EncodedDataset,
    Recipe,
    ResumableTrainer,
    encode_examples,
    fit,
    load_classifier,
    load_tokenizer,
    training_arguments,
)
from project.sentiment.phrases import HELD_BACK, Split, hold_back, maximal_phrases
from project.sentiment.runs import (
    RUN_FILE,
    RunError,
    begin,
    check_held_back,
    digest,
    held_back_record,
    model_digest,
    read_record,
    record_of,
    write_record,
)
from project.sentiment.sentences import without_quotations
from project.sentiment.soft_labels import SoftLabel, label, read_soft_labels

TEACHER = Recipe(
    learning_rate=3e-5,
    batch_size=32,
    epochs=2.0,
    label_smoothing=0.0,
    evaluations_per_epoch=2,
    bf16=True,
    frozen_layers=4,
)
WARM_UP = Recipe(epochs=2.0, bf16=True, frozen_layers=0, evaluations_per_epoch=4)
STUDENT = Recipe(
    learning_rate=8e-5,
    batch_size=64,
    epochs=3.0,
    label_smoothing=0.0,
    evaluations_per_epoch=2,
    bf16=True,
    frozen_layers=0,
    dropout=0.0,
)
MIN_WORDS = 5  # of a sentence that is worth changing
LABEL_SHARE = 0.3  # of the target, where SST-2 has a label; the teacher has the rest
UNLABELLED_SURE = 0.95  # target for the label of a phrase that the teacher was not asked about
NATURAL_SHARE = 0.25  # of the texts are spelled as people do
ESCAPED_SHARE = 0.35  # have their brackets, if any, as the treebank has them
SHARED = ("base", "held_back", "held_back_digest")  # by the models of an average
CHANGED, PHRASES, DOMAIN = 20_000, 10_000, 6_000


class SoftTrainer(ResumableTrainer):
    """Cross-entropy with a probability per class, or with the index of a class."""

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """The loss, and the model's outputs if they are asked for."""
        outputs = model(**{name: value for name, value in inputs.items() if name != "labels"})
        loss = torch.nn.functional.cross_entropy(outputs.logits.float(), inputs["labels"])
        return (loss, outputs) if return_outputs else loss


def train_teacher(base: str, split: Split, phrases: int, output: Path, recipe: Recipe) -> None:
    """Fine-tune ``base`` on the whole sentences and ``phrases`` of the other phrases."""
    examples = teacher_examples(split.train, phrases, recipe.seed)
    train_on_labels(base, Split(examples, split.held_back), output, recipe)


def train_on_labels(base: str, split: Split, output: Path, recipe: Recipe) -> None:
    """Fine-tune ``base`` on SST-2's own labels; for a student: a start for :func:`distill`."""
    tokenizer = load_tokenizer(base)
    data = encode_examples(split.train, tokenizer, recipe.max_tokens)
    _fit_and_save(base, tokenizer, data, split.held_back, output, recipe)


def teacher_examples(train: Sequence[Example], phrases: int, seed: int) -> list[Example]:
    """All whole sentences, and a sample of the phrases that are parts of them."""
    whole = maximal_phrases(train)
    rest = sorted(set(train) - set(whole), key=lambda each: (each.text, each.label))
    rest = [each for each in rest if len(each.text.split()) >= 3]
    chance = random.Random(seed)  # noqa: S311  (no secret)
    return whole + chance.sample(rest, phrases)


def texts_to_label(train: Sequence[Example], base: str, count: int, seed: int = 0) -> list[str]:
    """SST-2's whole sentences, ``count`` changed ones, and the other phrases, longest first.

    Args:
        base: whose embedding has the neighbours that words are replaced by.
    """
    whole = maximal_phrases(train)
    sentences = [each for each in whole if len(each.text.split()) >= MIN_WORDS]
    changed = change_sentences(sentences, train, base, count, seed)
    phrases = sorted((each.text for each in train), key=len, reverse=True)
    return list(dict.fromkeys([*(each.text for each in whole), *changed, *phrases]))


def distill(
    base: str,
    split: Split,
    soft: Sequence[SoftLabel],
    output: Path,
    recipe: Recipe,
    *,
    phrases: int,
    domain: int,
) -> None:
    """Train ``base`` on a teacher's probabilities, and on what has labels of its own.

    Args:
        phrases: how many of SST-2's phrases that the teacher was not asked about.
        domain: how many texts of other domains.
    """
    tokenizer = load_tokenizer(base)
    held_back = {each.text for each in split.held_back}
    allowed = [each for each in soft if each.text not in held_back]
    rows = student_rows(split.train, allowed, phrases, recipe.seed)
    rows += domain_texts(domain, recipe.seed)
    targets = [[1 - positive, positive] for _, positive in rows]
    data = EncodedDataset([text for text, _ in rows], targets, tokenizer, recipe.max_tokens)
    _fit_and_save(base, tokenizer, data, split.held_back, output, recipe, SoftTrainer)


def student_rows(
    train: Sequence[Example], soft: Sequence[SoftLabel], phrases: int, seed: int
) -> list[tuple[str, float]]:
    """Texts and the probability of POSITIVE to learn; shares of them in other spellings.

    They do not depend on the order of ``soft``, which is another one if labelling was stopped.
    """
    chance = random.Random(seed)  # noqa: S311  (no secret)
    labels = {each.text: each.label for each in train}
    targets = {}
    for each in sorted(soft, key=lambda each: (each.text, each.logits)):
        target = each.probability()
        share = LABEL_SHARE if each.text in labels else 0.0
        targets[each.text] = target + share * (labels.get(each.text, 0) - target)
    rest = sorted(set(labels) - set(targets))
    for text in chance.sample(rest, min(phrases, len(rest))):
        targets[text] = UNLABELLED_SURE if labels[text] else 1 - UNLABELLED_SURE
    return [(_respell(text, chance.random()), target) for text, target in targets.items()]


def _respell(text: str, draw: float) -> str:
    if draw < NATURAL_SHARE:
        return spell_naturally(text)
    return escape(text) if draw < NATURAL_SHARE + ESCAPED_SHARE else text


def _fit_and_save(
    base: str,
    tokenizer: PreTrainedTokenizerBase,
    data: EncodedDataset,
    held_back: Sequence[Example],
    output: Path,
    recipe: Recipe,
    trainer_class: type[ResumableTrainer] = ResumableTrainer,
) -> None:
    checkpoints = output / "checkpoints"
    evaluated = encode_examples(held_back, tokenizer, recipe.max_tokens)
    made_from = {"base": model_digest(base), "rows": len(data), "rows_digest": data.digest()}
    record = {**made_from, **held_back_record(held_back), **asdict(recipe)}
    begin(output / RUN_FILE, record, begun=checkpoints.exists())
    model = load_classifier(base, recipe)
    arguments = training_arguments(recipe, checkpoints, len(data))
    state = fit(model, tokenizer, data, evaluated, arguments, trainer_class)
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    log = json.dumps(state.log_history, indent=1)
    (output / "log.json").write_text(log, encoding="utf-8")


def average(folders: Sequence[Path], output: Path) -> None:
    """Write the mean of the weights of models that were trained from the same start.

    Raises:
        RunError: they were not, or other sentences were held back from one; or one has no record.
    """
    records = [read_record(record_of(each)) for each in folders]
    shared = [{name: record.get(name) for name in SHARED} for record in records]
    for folder, each in zip(folders, shared, strict=True):
        if each != shared[0]:
            raise RunError(f"{folder} is of {each}, and {folders[0]} of {shared[0]}: no average")
    models = [AutoModelForSequenceClassification.from_pretrained(each) for each in folders]
    states = [model.state_dict() for model in models]
    mean = {
        name: torch.stack([state[name].float() for state in states]).mean(dim=0)
        for name in states[0]
    }
    models[0].load_state_dict(mean)
    models[0].save_pretrained(output)
    load_tokenizer(str(folders[0])).save_pretrained(output)
    averaged = {"average_of": [model_digest(each) for each in folders]}
    write_record(output / RUN_FILE, averaged | shared[0])


def _teacher(options: argparse.Namespace, split: Split) -> None:
    train_teacher(options.base, split, options.phrases, options.output, _recipe(TEACHER, options))


def _warm_up(options: argparse.Namespace, split: Split) -> None:
    recipe = _recipe(WARM_UP, options)
    train_on_labels(options.base, split, options.output, recipe)


def _label(options: argparse.Namespace, split: Split) -> None:
    if options.texts is None:
        changed = CHANGED if options.changed is None else options.changed
        texts = texts_to_label(split.train, options.base, changed, options.seed or 0)
    elif options.changed is not None or options.seed is not None:
        raise ValueError("--changed and --seed are for the texts of --train: leave out --texts")
    else:  # which may hold anything
        held_back = (each.text for each in split.held_back)
        texts = list(without_quotations(read_texts(options.texts), held_back))
    made_from = {"teacher": model_digest(options.teacher), "texts_digest": digest(texts)}
    record = options.output.with_name(f"{options.output.name}.{RUN_FILE}")
    begun = options.output.exists()
    begin(record, made_from | held_back_record(split.held_back), begun=begun)
    part, parts = options.part
    label(texts[: options.limit][part::parts], options.teacher, options.output)


def _student(options: argparse.Namespace, split: Split) -> None:
    soft = [each for path in options.soft for each in read_soft_labels(path)]
    for path in options.soft:
        check_held_back(record_of(path), split.held_back)
    recipe = _recipe(STUDENT, options)
    distill(
        options.base,
        split,
        soft,
        options.output,
        recipe,
        phrases=options.phrases,
        domain=options.domain,
    )


def _check_models(options: argparse.Namespace, split: Split) -> None:
    """Refuse a model that a run made which was trained on what is held back now."""
    for model in (options.base, getattr(options, "teacher", options.base)):
        record = record_of(Path(model))
        if record.exists():
            check_held_back(record, split.held_back)


def _recipe(default: Recipe, options: argparse.Namespace) -> Recipe:
    given = {name: getattr(options, name) for name in ("epochs", "learning_rate", "seed")}
    return replace(default, **{name: value for name, value in given.items() if value is not None})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.distill",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, run in COMMANDS.items():
        command = commands.add_parser(name, help=(run.__doc__ or "").strip())
        command.set_defaults(run=run)
        command.add_argument("--base", required=True, help="Hub id or local folder")
        command.add_argument("--train", required=True, type=Path, help="SST-2's train.tsv")
        command.add_argument("--output", required=True, type=Path)
        command.add_argument("--held-back", type=int, default=HELD_BACK, help="whole sentences")
    for name in ("teacher", "warm-up", "student"):
        for option, kind in (("epochs", float), ("learning-rate", float), ("seed", int)):
            commands.choices[name].add_argument(f"--{option}", type=kind)
    commands.choices["teacher"].add_argument("--phrases", type=int, default=12_000)
    commands.choices["label"].add_argument("--teacher", required=True)
    commands.choices["label"].add_argument(
        "--texts", type=Path, help="a text a line, to be labelled instead of those of --train"
    )
    commands.choices["label"].add_argument(
        "--changed", type=int, help=f"how many changed sentences ({CHANGED})"
    )
    commands.choices["label"].add_argument(
        "--seed", type=int, help="other changed sentences than those of another seed (0)"
    )
    commands.choices["label"].add_argument(
        "--limit", type=int, help="how many texts: of --train, whole sentences first, then changed"
    )
    commands.choices["label"].add_argument(
        "--part", type=_part, default=(0, 1), metavar="I/N", help="every Nth text, from the Ith on"
    )
    commands.choices["student"].add_argument("--soft", required=True, type=Path, nargs="+")
    commands.choices["student"].add_argument("--phrases", type=int, default=PHRASES)
    commands.choices["student"].add_argument("--domain", type=int, default=DOMAIN)
    averaging = commands.add_parser("average")
    averaging.add_argument("folders", nargs="+", type=Path)
    averaging.add_argument("--output", required=True, type=Path)
    return parser


def _part(text: str) -> tuple[int, int]:
    part, parts = map(int, text.split("/"))
    if not 0 <= part < parts:
        raise ValueError(text)
    return part, parts


COMMANDS = {"teacher": _teacher, "warm-up": _warm_up, "label": _label, "student": _student}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        if options.command == "average":
            average(options.folders, options.output)
        else:
            split = hold_back(read_examples(options.train), options.held_back)
            _check_models(options, split)
            options.run(options, split)
    except (DataError, ModelError, ValueError) as error:
        print(f"distill: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
