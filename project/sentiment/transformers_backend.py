"""PyTorch and transformers: for GPUs, and for models that were not exported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from project.sentiment.files import ModelConfig, ModelError
from project.sentiment.prediction import TokenIds


class TransformersBackend:
    """A model in single precision, on the GPU if there is one.

    Raises:
        ModelError: the weights cannot be read.
    """

    def __init__(self, folder: Path, config: ModelConfig, threads: int) -> None:
        try:
            model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        except Exception as error:  # damaged weights raise classes of other libraries
            raise ModelError(f"{folder}: {error}") from error
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._model = model.eval().to(self._device)
        self._pad_id = config.pad_id
        torch.set_num_threads(threads)
        self.workers = 1  # torch spreads a batch over the cores itself

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """See :meth:`Classifier.infer`."""
        longest = max(map(len, batch))
        ids = torch.full((len(batch), longest), self._pad_id)
        mask = torch.zeros((len(batch), longest), dtype=torch.int64)
        for row, window in enumerate(batch):
            ids[row, : len(window)] = torch.tensor(window)
            mask[row, : len(window)] = 1
        with torch.inference_mode():
            logits = self._model(
                input_ids=ids.to(self._device), attention_mask=mask.to(self._device)
            ).logits
        rows: list[list[float]] = torch.softmax(logits.double(), dim=-1).tolist()
        return rows
