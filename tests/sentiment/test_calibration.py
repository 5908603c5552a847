"""Calibration: temperatures, and how far scores are from frequencies."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from project.sentiment import calibration as module
from project.sentiment.calibration import calibrate, diagram, fit_temperature, margins, reliability
from project.sentiment.data import Example, read_examples
from project.sentiment.files import WEIGHTS, ModelError
from project.sentiment.model import SentimentClassifier
from tests.sentiment.conftest import sentiment_pipeline


def sample(temperature: float, count: int = 4000) -> tuple[np.ndarray, list[Example]]:
    """Log-odds ``temperature`` times too large, and outcomes as frequent as they should be."""
    chance = np.random.default_rng(0)
    honest = chance.normal(0, 2, count)
    labels = chance.random(count) < 1 / (1 + np.exp(-honest))
    return honest * temperature, [Example("", int(label)) for label in labels]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_temperature_is_found(temperature: float) -> None:
    """The factor by which the log-odds are too large is found, and brings the error down."""
    log_odds, examples = sample(temperature)

    found = fit_temperature(log_odds, examples)

    assert found == pytest.approx(temperature, rel=0.1)
    assert reliability(log_odds / found, examples).ece < 0.02


def test_expected_calibration_error() -> None:
    """Four texts at 0.92 of which three are right, and one at 0.62 that is right: by hand."""
    odds = [float(np.log(0.92 / 0.08))] * 4 + [float(np.log(0.38 / 0.62))]
    examples = [Example("", label) for label in (1, 1, 1, 0, 0)]

    measured = reliability(np.array(odds), examples)

    assert measured.ece == pytest.approx((4 * 0.17 + 1 * 0.38) / 5)
    assert measured.nll == pytest.approx(-(3 * np.log(0.92) + np.log(0.08) + np.log(0.62)) / 5)
    assert [each.texts for each in measured.bins] == [0, 0, 1, 0, 0, 0, 0, 0, 4, 0]


def test_folded_into_the_head(trained: Path, labelled: Path, tmp_path: Path) -> None:
    """The copy's log-odds are divided by the temperature in every runtime; labels stay."""
    output = tmp_path / "calibrated"
    examples = read_examples(labelled)

    temperature = calibrate(trained, examples, output)

    before = margins(SentimentClassifier(trained), examples)
    after = margins(SentimentClassifier(output), examples)
    assert after * temperature == pytest.approx(before, rel=0.02, abs=0.02)
    noted = json.loads((output / "config.json").read_text(encoding="utf-8"))["calibration"]
    assert noted["temperature"] == pytest.approx(temperature, abs=1e-4)
    (plain,) = sentiment_pipeline(model=str(output), top_k=None)(["i like you"])
    scores = {each["label"]: each["score"] for each in plain}
    (ours,) = SentimentClassifier(output).predict(["i like you"])
    assert scores == pytest.approx(ours.scores, abs=1e-5)


def test_diagram_is_drawn() -> None:
    """A bar for every interval, in valid XML."""
    log_odds, examples = sample(1.0)

    root = ET.fromstring(diagram(reliability(log_odds, examples)))  # noqa: S314  (our own)

    titles = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == module.BINS
    assert all("accuracy" in each for each in titles)


def test_measures(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line prints the figures of the shipped model and writes the diagram."""
    svg = tmp_path / "reliability.svg"

    assert module.main([str(WEIGHTS), "--measure", str(labelled), "--diagram", str(svg)]) == 0

    assert 0 <= json.loads(capsys.readouterr().out)["ece"] <= 1
    assert svg.read_text(encoding="utf-8").startswith("<svg")


def test_other_heads_are_refused(
    trained: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose head is no linear layer is an error, before anything is written."""
    from transformers import AutoModelForSequenceClassification

    load = AutoModelForSequenceClassification.from_pretrained

    def headless(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  (as the library)
        model = load(*arguments, **options)
        model.classifier = None
        return model

    monkeypatch.setattr(AutoModelForSequenceClassification, "from_pretrained", headless)

    with pytest.raises(ModelError, match="no linear layer named classifier"):
        calibrate(trained, read_examples(labelled), tmp_path / "output")
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{weights}", "--measure", "nothing.tsv"], "nothing.tsv"),
        (["{weights}", "--train", "{file}"], "--output is missing"),
        (["/nowhere", "--measure", "{file}"], "nowhere"),
    ],
)
def test_mistake_is_said(
    arguments: list[str], message: str, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and what is wrong."""
    filled = [each.format(weights=WEIGHTS, file=labelled) for each in arguments]

    assert module.main(filled) == 2
    assert message in capsys.readouterr().err
