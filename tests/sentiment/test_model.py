"""The shipped weights, and the classifier around any weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from project.sentiment import model
from project.sentiment.model import WEIGHTS, ModelError, SentimentClassifier
from tests.sentiment.conftest import sentiment_pipeline

TEXTS = [
    "i like you",
    "i hate you",
    "a wonderful, moving film",
    "the worst two hours of my life, and i have been to the dentist",
    "meh",
]


def test_labels(shipped: SentimentClassifier) -> None:
    """The texts of the README have the labels that the README shows."""
    like, hate = shipped.predict(["i like you", "i hate you"])

    assert (like.label, hate.label) == ("POSITIVE", "NEGATIVE")
    assert like.score == like.scores["POSITIVE"] > 0.8
    assert hate.scores["POSITIVE"] + hate.scores["NEGATIVE"] == pytest.approx(1.0)


def test_agrees_with_pipeline(shipped: SentimentClassifier) -> None:
    """Plain transformers reads the same weights and answers the same, alone or in a batch."""
    reference = sentiment_pipeline(model=str(WEIGHTS))(TEXTS)

    for together, text, expected in zip(shipped.predict(TEXTS), TEXTS, reference, strict=True):
        (alone,) = shipped.predict([text])
        assert together.label == alone.label == expected["label"]
        assert together.score == pytest.approx(expected["score"], abs=1e-5)
        assert alone.score == pytest.approx(expected["score"], abs=1e-5)


def test_order_is_kept_over_batches(shipped: SentimentClassifier) -> None:
    """More texts than a batch holds, of mixed lengths, come back in their order."""
    texts = [TEXTS[number % 5] for number in range(2 * model.BATCH_SIZE + 3)]

    labels = [prediction.label for prediction in shipped.predict(texts)]

    expected = [prediction.label for prediction in shipped.predict(TEXTS)]
    assert labels == [expected[number % 5] for number in range(len(texts))]


def test_no_texts(shipped: SentimentClassifier) -> None:
    """Nothing in, nothing out."""
    assert shipped.predict([]) == []


def test_long_text(shipped: SentimentClassifier) -> None:
    """A text longer than the window is classified by its beginning."""
    (prediction,) = shipped.predict(["wonderful " * 2000])

    assert prediction.label == "POSITIVE"


def test_half_precision_and_size() -> None:
    """The weights are small enough to commit, and stored in half precision."""
    file = WEIGHTS / "model.safetensors"

    assert file.stat().st_size < 46_000_000
    with file.open("rb") as tensors:
        header = json.loads(tensors.read(int.from_bytes(tensors.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}


def test_missing_model_is_named(tmp_path: Path) -> None:
    """A folder that is not there is an error of its own, with its name."""
    with pytest.raises(ModelError, match="nowhere"):
        SentimentClassifier(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "texts"), [(["good"], ["good"]), ([], ["i like you!", "i hate you!"])]
)
def test_command_line(
    arguments: list[str], texts: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A line of JSON per text; two samples without any."""
    assert model.main(arguments) == 0

    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["text"] for line in lines] == texts
    assert set(lines[0]) == {"text", "label", "score", "scores"}
