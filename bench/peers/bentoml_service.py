"""(c) BentoML with its adaptive batching: the pipeline inside, or our session (``PEER_ONNX=1``)."""

from __future__ import annotations

import os
from typing import Any

import bentoml

from project.sentiment.cpus import available_cpus
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier


@bentoml.service(workers=1, traffic={"timeout": 60, "concurrency": 128})
class Sentiment:
    """A batchable API: its input is a list, which the dispatcher joins over requests."""

    def __init__(self) -> None:
        if os.environ.get("PEER_ONNX"):
            self.classifier = SentimentClassifier()
            self.classify: Any = self._ours
        else:
            import torch
            from transformers import pipeline

            torch.set_num_threads(available_cpus())
            classify = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
            self.classify = lambda texts: classify(texts, batch_size=len(texts))

    @bentoml.api(batchable=True, max_batch_size=16, max_latency_ms=10_000, route="/")
    def predict(self, input_text: list[str]) -> list[dict[str, Any]]:
        """A batch."""
        answers: list[dict[str, Any]] = self.classify(input_text)
        return answers

    def _ours(self, texts: list[str]) -> list[dict[str, Any]]:
        return [
            {"label": each.label, "score": each.score} for each in self.classifier.predict(texts)
        ]
