"""The behavioural suite: what it holds, how it is judged, and what the model card says of it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from project.sentiment import behaviour as module
from project.sentiment.behaviour import Capability, Case, Kind, read_suite, run, summarise
from project.sentiment.data import DataError
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier
from project.sentiment.prediction import Prediction

SUITE = Path(__file__).with_name("suite.yaml")
CARD = WEIGHTS / "README.md"


class Table:
    """Answers with the probability of POSITIVE that a table has for a text."""

    def __init__(self, positive: dict[str, float]) -> None:
        self.positive = positive
        self.asked: list[str] = []

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """One prediction per text."""
        self.asked += texts
        return [self._answer(self.positive[text]) for text in texts]

    @staticmethod
    def _answer(positive: float) -> Prediction:
        scores = {"NEGATIVE": 1 - positive, "POSITIVE": positive}
        label = max(scores, key=scores.__getitem__)
        return Prediction(label, scores[label], scores, 1, 1, truncated=False)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    """All cases of the suite."""
    return read_suite(SUITE)


def test_size(cases: list[Case]) -> None:
    """At least 12 capabilities and 500 different cases, all three kinds, 12 cases each or more."""
    counts = Counter(case.capability for case in cases)

    assert len(counts) >= 12
    assert len({(case.capability, case.texts) for case in cases}) == len(cases) >= 500
    assert min(counts.values()) >= 12
    assert {case.kind for case in cases} == set(Kind)


def test_every_slot_is_filled(cases: list[Case]) -> None:
    """No text has a slot left, or an expectation that nothing checks."""
    assert not [case for case in cases if re.search(r"[{}]", "".join(case.texts))]
    expected = {kind: {case.expect for case in cases if case.kind is kind} for kind in Kind}
    assert expected == {
        Kind.MFT: {"POSITIVE", "NEGATIVE", "UNSURE"},
        Kind.INV: {""},
        Kind.DIR: {"up", "down"},
    }
    assert {len(case.texts) for case in cases if case.kind is not Kind.MFT} == {2}


def test_pairs_differ(cases: list[Case]) -> None:
    """A pair of equal texts would pass whatever the model does."""
    assert not [case for case in cases if len(set(case.texts)) != len(case.texts)]


def test_cases_are_repeatable(cases: list[Case]) -> None:
    """The drawn cases are the same every time."""
    assert read_suite(SUITE) == cases


def test_verdict_comes_last(cases: list[Case]) -> None:
    """The long texts have three lengths, and their verdict at the end."""
    texts = [case.texts[0] for case in cases if case.capability == "verdict last"]

    assert all("In the end" in text[-150:] for text in texts)
    assert len({len(text) // 350 for text in texts}) >= 3


@pytest.mark.parametrize(
    ("case", "positive", "passed"),
    [
        (Case("c", Kind.MFT, ("a",), "POSITIVE"), [0.6], True),
        (Case("c", Kind.MFT, ("a",), "POSITIVE"), [0.4], False),
        (Case("c", Kind.MFT, ("a",), "NEGATIVE"), [0.4], True),
        (Case("c", Kind.MFT, ("a",), "UNSURE"), [0.75], True),
        (Case("c", Kind.MFT, ("a",), "UNSURE"), [0.85], False),
        (Case("c", Kind.MFT, ("a",), "UNSURE"), [0.1], False),
        (Case("c", Kind.INV, ("a", "b")), [0.9, 0.6], True),
        (Case("c", Kind.INV, ("a", "b")), [0.9, 0.4], False),
        (Case("c", Kind.DIR, ("a", "b"), "up"), [0.9, 0.88], True),
        (Case("c", Kind.DIR, ("a", "b"), "up"), [0.9, 0.8], False),
        (Case("c", Kind.DIR, ("a", "b"), "up", strictly=True), [0.9, 0.9], False),
        (Case("c", Kind.DIR, ("a", "b"), "up", strictly=True), [0.9, 0.91], True),
        (Case("c", Kind.DIR, ("a", "b"), "down"), [0.5, 0.52], True),
        (Case("c", Kind.DIR, ("a", "b"), "down", strictly=True), [0.5, 0.52], False),
    ],
)
def test_judgement(case: Case, positive: list[float], passed: bool) -> None:
    """What passes and what does not, by kind."""
    table = Table(dict(zip(case.texts, positive, strict=True)))

    (outcome,) = run(table, [case])

    assert (outcome.passed, outcome.positive) == (passed, tuple(positive))


def test_counts() -> None:
    """Pass rates by capability, in the suite's order; every text is asked for once."""
    table = Table({"a": 0.9, "b": 0.1})
    suite = [
        Case("x", Kind.MFT, ("a",), "POSITIVE"),
        Case("x", Kind.MFT, ("b",), "POSITIVE"),
        Case("w", Kind.INV, ("a", "b")),
    ]

    assert summarise(run(table, suite)) == [Capability("x", 2, 1), Capability("w", 1, 0)]
    assert sorted(table.asked) == ["a", "b"]


def test_card_shows_pass_rates(cases: list[Case]) -> None:
    """The model card's figures are those of the shipped weights: no capability got worse unseen.

    A case that lies on the boundary may fall on the other side on another machine.
    """
    recorded = _recorded(CARD.read_text(encoding="utf-8"))

    for capability in summarise(run(SentimentClassifier(), cases)):
        count, share = recorded[capability.name]
        assert count == capability.cases
        slack = 0.005 + 1 / capability.cases
        assert capability.rate == pytest.approx(share, abs=slack), capability.name


def _recorded(card: str) -> dict[str, tuple[int, float]]:
    rows = re.findall(r"^\| ([a-z' ]+) \| (\d+) \| (\d+) %", card, flags=re.MULTILINE)
    return {name: (int(count), int(share) / 100) for name, count, share in rows}


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table, JSON, or the cases that fail."""
    suite = tmp_path / "suite.yaml"
    suite.write_text(
        "capabilities:\n  plain:\n"
        "    - {kind: MFT, expect: POSITIVE, texts: [I love it., I hate it.]}\n",
        encoding="utf-8",
    )

    assert module.main([str(suite)]) == 0
    assert "| plain | 2 | 50 % |" in capsys.readouterr().out
    assert module.main([str(suite), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"name": "plain", "cases": 2, "passed": 1}]
    assert module.main([str(suite), "--failures"]) == 0
    assert json.loads(capsys.readouterr().out)["texts"] == ["I hate it."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "no behavioural suite"),
        ("words: {}", "no behavioural suite"),
        ("capabilities: {plain: [{texts: [a]}]}", "'plain'.*kind"),
        ("capabilities: {plain: [{kind: XYZ, texts: [a]}]}", "'plain'.*XYZ"),
        ("capabilities: {typing: [{kind: INV, texts: [a]}]}", "'typing'"),
    ],
)
def test_mistake_is_named(
    content: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file, the capability and what is wrong with it."""
    path = tmp_path / "suite.yaml"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(DataError, match=message):
        read_suite(path)
    assert module.main([str(path)]) == 2
    assert "suite.yaml" in capsys.readouterr().err
