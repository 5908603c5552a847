"""(b) LitServe with its batching: the pipeline inside, or our session (``--onnx``)."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from project.sentiment.cpus import available_cpus
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier


class PipelineAPI(litserve.LitAPI):
    """A ``transformers.pipeline`` on whole batches."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        import torch
        from transformers import pipeline

        torch.set_num_threads(available_cpus())
        self.classify: Any = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)

    def decode_request(self, request: dict[str, str]) -> str:
        """The text."""
        return request["input_text"]

    def predict(self, texts: list[str]) -> list[dict[str, object]]:
        """A batch."""
        answers: list[dict[str, object]] = self.classify(texts, batch_size=len(texts))
        return answers

    def encode_response(self, output: dict[str, object]) -> dict[str, object]:
        """The label and its score."""
        return output


class OnnxAPI(PipelineAPI):
    """Our session, sorting and threads, under LitServe's batching."""

    def setup(self, device: str) -> None:
        """Load the model in the worker."""
        self.classifier = SentimentClassifier()

    def predict(self, texts: list[str]) -> list[dict[str, object]]:
        """A batch."""
        return [
            {"label": each.label, "score": each.score} for each in self.classifier.predict(texts)
        ]


if __name__ == "__main__":
    api_class = OnnxAPI if "--onnx" in sys.argv else PipelineAPI
    api = api_class(max_batch_size=16, api_path="/")
    server = litserve.LitServer(api, accelerator="cpu", healthcheck_path="/healthcheck")
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
