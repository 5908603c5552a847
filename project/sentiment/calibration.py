r"""Calibrates a classifier: its probabilities become frequencies. Also: how far off they are.

    python -m project.sentiment.calibration student --train train.tsv --output weights
    python -m project.sentiment.calibration weights --measure dev.tsv --diagram reliability.svg

One temperature divides the logits (Guo et al. 2017). It is fitted on sentences that are held back
from training, and folded into the classification head: every runtime that reads the weights,
``transformers.pipeline`` too, answers with calibrated probabilities and has nothing to apply.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from project.sentiment.data import LABELS, DataError, Example, read_examples
from project.sentiment.files import ModelError, weights_revision
from project.sentiment.model import SentimentClassifier
from project.sentiment.runs import RUN_FILE, held_back_of, held_back_record, record_of, write_record

BINS = 10
TEMPERATURES = np.geomspace(0.2, 5.0, 401)

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Bin:
    """The texts whose score is in one interval: how many, mean score, and share of right labels."""

    texts: int
    score: float
    accuracy: float


@dataclass(frozen=True, slots=True)
class Reliability:
    """Scores against outcomes.

    Attributes:
        ece: expected calibration error in ``BINS`` equal intervals of the score from 0.5 to 1
            (Naeini et al. 2015), 0 to 1.
        nll: mean negative log-likelihood of the right label, in nats.
    """

    ece: float
    nll: float
    bins: tuple[Bin, ...]


def margins(classifier: SentimentClassifier, examples: Sequence[Example]) -> Floats:
    """The log-odds of POSITIVE for every example."""
    predictions = classifier.predict([each.text for each in examples])
    positive = np.array([each.scores[LABELS[1]] for each in predictions])
    clipped = np.clip(positive, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped), np.float64)


def fit_temperature(log_odds: Floats, examples: Sequence[Example]) -> float:
    """The temperature with the smallest negative log-likelihood on ``examples``."""
    signs = np.array([1.0 if each.label else -1.0 for each in examples])
    losses = [np.mean(np.logaddexp(0, -signs * log_odds / each)) for each in TEMPERATURES]
    return float(TEMPERATURES[int(np.argmin(losses))])


def reliability(log_odds: Floats, examples: Sequence[Example]) -> Reliability:
    """Compare scores with outcomes."""
    outcomes = np.array([bool(each.label) for each in examples])
    right = (log_odds > 0) == outcomes
    score = 1 / (1 + np.exp(-np.abs(log_odds)))
    places = np.minimum((score - 0.5) * 2 * BINS, BINS - 1).astype(int)
    bins = []
    for place in range(BINS):
        members = places == place
        count = int(members.sum())
        means = (score[members].mean(), right[members].mean()) if count else (0.0, 0.0)
        bins.append(Bin(count, float(means[0]), float(means[1])))
    ece = sum(each.texts * abs(each.score - each.accuracy) for each in bins) / len(examples)
    nll = float(np.mean(np.logaddexp(0, np.where(outcomes, -log_odds, log_odds))))
    return Reliability(ece, nll, tuple(bins))


def calibrate(folder: Path, examples: Sequence[Example], output: Path) -> float:
    """Write a copy of the model in ``folder`` whose scores are calibrated, in half precision.

    Returns:
        The temperature, which ``config.json`` notes too.

    Raises:
        ModelError: the model has no linear head by the name ``classifier``.
    """
    # Only here: measuring works without torch.
    import torch
    from transformers import AutoModelForSequenceClassification

    from project.sentiment.fitting import load_tokenizer, save_half

    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    head = getattr(model, "classifier", None)
    if not isinstance(head, torch.nn.Linear):
        raise ModelError(f"{folder}: no linear layer named classifier to fold a temperature into")
    temperature = fit_temperature(margins(SentimentClassifier(folder), examples), examples)
    with torch.no_grad():
        head.weight.div_(temperature)
        head.bias.div_(temperature)
    model.config.calibration = {
        "method": "temperature scaling",
        "temperature": round(temperature, 4),
        "applied": "classifier.weight and classifier.bias are divided by it",
        "fitted_on": f"{len(examples)} held-back sentences",
    }
    save_half(model, load_tokenizer(str(folder)), output)
    if record_of(folder).exists():
        calibrated = {"calibrated_from": weights_revision(folder), **held_back_record(examples)}
        write_record(output / RUN_FILE, calibrated)
    return temperature


def diagram(measured: Reliability) -> str:
    """A reliability diagram as SVG: accuracy by score, and the diagonal of a calibrated model."""
    size, margin = 300, 40
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size + 2 * margin}"'
        f' height="{size + 2 * margin}" font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    width = size / BINS
    for place, each in enumerate(measured.bins):
        height = max(0.0, each.accuracy - 0.5) * 2 * size
        parts.append(
            f'<rect x="{margin + place * width:.1f}" y="{margin + size - height:.1f}"'
            f' width="{width - 2:.1f}" height="{height:.1f}" fill="#4878a8">'
            f"<title>{each.texts} texts: score {each.score:.3f}, accuracy {each.accuracy:.3f}"
            "</title></rect>"
        )
    end = margin + size
    parts += [
        f'<path d="M{margin} {margin}V{end}H{end}" fill="none" stroke="black"/>',
        f'<path d="M{margin} {end}L{end} {margin}" stroke="#c04040" stroke-dasharray="4"/>',
        f'<text x="{margin}" y="{end + 16}">0.5</text>',
        f'<text x="{end - 8}" y="{end + 16}">1</text>',
        f'<text x="{margin + size / 2 - 15}" y="{end + 30}">score</text>',
        f'<text x="{margin}" y="{margin - 12}">accuracy, 0.5 to 1; ECE {measured.ece:.2%}</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate, or measure; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m project.sentiment.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="local folder")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--train", type=Path, help="SST-2's train.tsv: fit on what is held back")
    task.add_argument("--measure", type=Path, help="labelled file to compare the scores with")
    parser.add_argument("--output", type=Path, help="folder for the calibrated weights")
    parser.add_argument(
        "--held-back", type=int, help="whole sentences; default: what the model's record says"
    )
    parser.add_argument("--diagram", type=Path, help="SVG file for the reliability diagram")
    options = parser.parse_args(argv)
    try:
        if options.train:
            print(f"temperature {_calibrate(options):.4f}; weights in {options.output}")
        else:
            _measure(options.model, options.measure, options.diagram)
    except (DataError, ModelError, ValueError) as error:
        print(f"calibration: {error}", file=sys.stderr)
        return 2
    return 0


def _calibrate(options: argparse.Namespace) -> float:
    if options.output is None:
        raise ValueError("--output is missing: the folder for the calibrated weights")
    held_back = held_back_of(options.model, options.train, options.held_back)
    return calibrate(options.model, held_back, options.output)


def _measure(model: Path, file: Path, svg: Path | None) -> None:
    examples = read_examples(file)
    measured = reliability(margins(SentimentClassifier(model), examples), examples)
    print(json.dumps(asdict(measured), indent=2))
    if svg:
        svg.write_text(diagram(measured), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
