"""The classifier: loads a sequence-classification model once, classifies lists of texts.

python -m project.sentiment.model "i like you!" "i hate you!"
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from project.sentiment.prediction import Prediction

WEIGHTS = Path(__file__).parent / "weights"
"""The model that the project ships."""

SHIPPED_NAME = "minilm-l6-sst2"

SAMPLE_TEXTS = ("i like you!", "i hate you!")
BATCH_SIZE = 16  # texts; sorted by length, so that a batch is padded to what it needs


class ModelError(RuntimeError):
    """The model could not be loaded."""


class SentimentClassifier:
    """A sequence-classification model in memory, ready to classify.

    Args:
        model: a local folder, or a Hub id.
        revision: of the Hub id: a branch, a tag or a commit.

    Raises:
        ModelError: the model is not there or is not a sequence-classification model.
    """

    def __init__(self, model: str | Path = WEIGHTS, revision: str | None = None) -> None:
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, revision=revision)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                model, revision=revision, dtype=torch.float32
            ).eval()
        except (OSError, ValueError) as error:
            raise ModelError(f"model {str(model)!r} could not be loaded: {error}") from error
        self._labels: dict[int, str] = self._model.config.id2label
        self._name = SHIPPED_NAME if Path(model) == WEIGHTS else str(model)

    @property
    def name(self) -> str:
        """What to call the model in an answer: its Hub id or folder, or the shipped one's name."""
        return self._name

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify ``texts``: one prediction per text, in their order.

        A text longer than the model's window (512 tokens) is classified by its beginning.
        """
        by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
        predictions: dict[int, Prediction] = {}
        for start in range(0, len(texts), BATCH_SIZE):
            batch = by_length[start : start + BATCH_SIZE]
            scored = self._predict_batch([texts[index] for index in batch])
            predictions.update(zip(batch, scored, strict=True))
        return [predictions[index] for index in range(len(texts))]

    def _predict_batch(self, texts: list[str]) -> list[Prediction]:
        inputs = self._tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits  # [texts, labels]
        return [self._prediction(row) for row in torch.softmax(logits, dim=-1).tolist()]

    def _prediction(self, probabilities: list[float]) -> Prediction:
        scores = {self._labels[index]: value for index, value in enumerate(probabilities)}
        label = max(scores, key=scores.__getitem__)
        return Prediction(label=label, score=scores[label], scores=scores)


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON line per text of ``argv``; returns the exit code."""
    texts = list(sys.argv[1:] if argv is None else argv) or list(SAMPLE_TEXTS)
    for text, prediction in zip(texts, SentimentClassifier().predict(texts), strict=True):
        print(json.dumps({"text": text, **asdict(prediction)}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
