r"""Tests a model's behaviour, capability by capability, as CheckList does (Ribeiro et al. 2020).

    python -m project.sentiment.behaviour
    python -m project.sentiment.behaviour --failures

The suite's file says what its kinds of tests and its words mean.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import string
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum, unique
from pathlib import Path
from typing import Any

import yaml

from project.sentiment.data import LABELS, DataError
from project.sentiment.evaluate import Predictor
from project.sentiment.files import WEIGHTS, ModelError
from project.sentiment.model import SentimentClassifier
from project.sentiment.prediction import Prediction

SUITE = Path("tests/behaviour/suite.yaml")
UNSURE_SCORE = 0.8
TOLERANCE = 0.05  # of the probability, for what must not go the wrong way
PREFACE_ROUNDS = (1, 4, 16)


@unique
class Kind(Enum):
    """The kinds of tests of CheckList."""

    #: One text, whose answer is known.
    MFT = "minimum functionality"
    #: Two texts that have the same label.
    INV = "invariance"
    #: Two texts, of which the second is more positive or more negative.
    DIR = "direction"


@dataclass(frozen=True, slots=True)
class Case:
    """One test: one or two texts and what is expected of them."""

    capability: str
    kind: Kind
    texts: tuple[str, ...]
    expect: str = ""
    strictly: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """A case, whether it passed, and the probability of POSITIVE of its texts."""

    case: Case
    passed: bool
    positive: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Capability:
    """How many cases of a capability pass."""

    name: str
    cases: int
    passed: int

    @property
    def rate(self) -> float:
        """Share of passed cases, 0 to 1."""
        return self.passed / self.cases


def read_suite(path: Path) -> list[Case]:
    """Read a suite and make its cases, the same ones every time.

    Raises:
        DataError: the file is no suite; the message names the capability.
    """
    try:
        suite = yaml.safe_load(path.read_text(encoding="utf-8"))
        capabilities, words = suite["capabilities"], suite.get("words", {})
    except (OSError, yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{path}: no behavioural suite: {error!r}") from error
    cases = []
    for name, groups in capabilities.items():
        try:
            cases += [case for group in groups for case in _cases(name, group, words)]
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: capability {name!r}: {error!r}") from error
    return cases


def run(classifier: Predictor, cases: Sequence[Case]) -> list[Outcome]:
    """Classify the texts of all cases, every text once."""
    texts = list(dict.fromkeys(text for case in cases for text in case.texts))
    answers = dict(zip(texts, classifier.predict(texts), strict=True))
    return [_judge(case, [answers[text] for text in case.texts]) for case in cases]


def summarise(outcomes: Sequence[Outcome]) -> list[Capability]:
    """Count by capability, in the order of the suite."""
    names = dict.fromkeys(outcome.case.capability for outcome in outcomes)
    found = {name: [each for each in outcomes if each.case.capability == name] for name in names}
    return [
        Capability(name, len(group), sum(each.passed for each in group))
        for name, group in found.items()
    ]


def _judge(case: Case, answers: Sequence[Prediction]) -> Outcome:
    positive = tuple(answer.scores[LABELS[1]] for answer in answers)
    if case.kind is Kind.INV:
        passed = answers[0].label == answers[1].label
    elif case.kind is Kind.DIR:
        rise = positive[1] - positive[0] if case.expect == "up" else positive[0] - positive[1]
        passed = rise > 0 if case.strictly else rise >= -TOLERANCE
    elif case.expect == "UNSURE":
        passed = answers[0].score <= UNSURE_SCORE
    else:
        passed = answers[0].label == case.expect
    return Outcome(case, passed, positive)


def _cases(name: str, group: Mapping[str, Any], words: Mapping[str, list[str]]) -> Iterator[Case]:
    kind = Kind[group["kind"]]
    words = {**words, **group.get("words", {})}
    expect, strictly = group.get("expect", ""), group.get("strictly", False)
    tuples = {Kind.MFT: _single, Kind.INV: _variants, Kind.DIR: _directed}[kind](group, words)
    limit = group.get("limit", sys.maxsize)
    for texts in itertools.islice(tuples, limit):
        yield Case(name, kind, texts, expect, strictly)


def _single(group: Mapping[str, Any], words: Mapping[str, list[str]]) -> Iterator[tuple[str, ...]]:
    preface = " ".join(group.get("preface", ()))
    rounds = itertools.cycle(PREFACE_ROUNDS)
    for text in (*group.get("texts", ()), *_fill_all(group.get("templates", ()), words)):
        yield (" ".join([*[preface] * next(rounds), text]) if preface else text,)


def _variants(
    group: Mapping[str, Any], words: Mapping[str, list[str]]
) -> Iterator[tuple[str, ...]]:
    for listed in group.get("texts", ()):
        yield from ((listed["text"], variant) for variant in listed["variants"])
    varied = group.get("vary")
    fixed = {name: values for name, values in words.items() if name != varied}
    for text in _fill_all(group.get("templates", ()), fixed):
        for variant in group.get("variants", ()):
            yield text, variant.replace("{text}", text)
        if "change" in group:
            yield text, CHANGES[group["change"]](text)
        if varied:
            first, *others = (text.replace(f"{{{varied}}}", value) for value in words[varied])
            yield from ((first, other) for other in others)


def _directed(
    group: Mapping[str, Any], words: Mapping[str, list[str]]
) -> Iterator[tuple[str, ...]]:
    for pair in _fill_all([f"{group['before']}\n{group['after']}"], words):
        yield tuple(pair.split("\n"))


def _fill_all(templates: Sequence[str], words: Mapping[str, list[str]]) -> Iterator[str]:
    """All texts of all templates, taken from each in turn, in an order that mixes the words."""
    filled = [_fill(template, words) for template in templates]
    for texts in itertools.zip_longest(*filled):
        yield from (text for text in texts if text is not None)


def _fill(template: str, words: Mapping[str, list[str]]) -> list[str]:
    names = sorted({name for _, name, _, _ in string.Formatter().parse(template) if name})
    known = [name for name in names if name in words]
    texts = []
    for values in itertools.product(*(words[name] for name in known)):
        text = template
        for name, value in zip(known, values, strict=True):
            text = text.replace(f"{{{name}}}", value)
        texts.append(text)
    random.Random(template).shuffle(texts)  # noqa: S311  (no secret)
    return texts


def _treebank(text: str) -> str:
    """Spell as the Penn Treebank does, and SST-2."""
    return re.sub(r"\s*([,.?!])", r" \1", text.replace("n't", " n't").replace("'s", " 's"))


CHANGES: dict[str, Callable[[str], str]] = {
    "upper": str.upper,
    "title": string.capwords,
    "apostrophe": lambda text: text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"),
    "treebank": _treebank,
    "spaces": lambda text: text.replace(" ", "  "),
    "no_full_stop": lambda text: text.removesuffix("."),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print a table of pass rates, or JSON; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.behaviour",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("suite", type=Path, nargs="?", default=SUITE, help="YAML file")
    parser.add_argument("--model", default=str(WEIGHTS), help="local folder or Hub id")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--failures", action="store_true", help="print every case that fails")
    options = parser.parse_args(argv)
    try:
        outcomes = run(SentimentClassifier(options.model), read_suite(options.suite))
    except (DataError, ModelError) as error:
        print(f"behaviour: {error}", file=sys.stderr)
        return 2
    capabilities = summarise(outcomes)
    if options.failures:
        for outcome in outcomes:
            if not outcome.passed:
                print(json.dumps(_failure(outcome), ensure_ascii=False))
    elif options.json:
        print(json.dumps([asdict(each) for each in capabilities], indent=1))
    else:
        print(table(capabilities))
    return 0


def table(capabilities: Sequence[Capability]) -> str:
    """A Markdown table, with a last row for all."""
    total = Capability(
        "all", sum(each.cases for each in capabilities), sum(each.passed for each in capabilities)
    )
    rows = [
        f"| {each.name} | {each.cases} | {100 * each.rate:.0f} % |"
        for each in (*capabilities, total)
    ]
    return "\n".join(["| capability | cases | pass |", "| --- | --- | --- |", *rows])


def _failure(outcome: Outcome) -> dict[str, object]:
    return {
        "capability": outcome.case.capability,
        "kind": outcome.case.kind.name,
        "expect": outcome.case.expect,
        "texts": [text[-200:] for text in outcome.case.texts],
        "positive": [round(each, 3) for each in outcome.positive],
    }


if __name__ == "__main__":
    sys.exit(main())
