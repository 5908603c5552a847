"""The classifier: loads a sequence-classification model once, classifies lists of texts.

python -m project.sentiment.model "i like you!" "i hate you!"
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from project.sentiment.cpus import available_cpus
from project.sentiment.encoding import TextEncoder
from project.sentiment.files import (
    GRAPH_FILE,
    WEIGHTS,
    ModelConfig,
    ModelError,
    find_model,
    read_model_config,
    weights_revision,
)
from project.sentiment.options import (
    BATCH_PADDING,
    BATCH_TOKENS,
    BackendName,
    LongTextPolicy,
    OnLongText,
)
from project.sentiment.prediction import EncodedText, Prediction, TextTooLong, TokenIds

SHIPPED_NAME = "minilm-l6-sst2"
SAMPLE_TEXTS = ("i like you!", "i hate you!")


class Backend(Protocol):
    """Computes batches; see :class:`~project.sentiment.prediction.Classifier`."""

    workers: int

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """The probabilities of every label for every window."""


class SentimentClassifier:
    """A sequence-classification model in memory, ready to classify from any thread.

    Args:
        model: a local folder, or a Hub id.
        revision: of the Hub id: a branch, a tag or a commit.
        threads: to compute on; None: as many as the container's CPU quota allows.
        graph: the file of the ONNX graph: an export checks its graph before that gets its name.

    Raises:
        ModelError: the model is not there, or cannot be run by ``backend``.
    """

    def __init__(
        self,
        model: str | Path = WEIGHTS,
        revision: str | None = None,
        *,
        backend: BackendName = BackendName.AUTO,
        threads: int | None = None,
        long_texts: LongTextPolicy | None = None,
        graph: str = GRAPH_FILE,
    ) -> None:
        self.folder = find_model(model, revision)
        config = replace(read_model_config(self.folder), graph=graph)
        self.name = SHIPPED_NAME if self.folder == WEIGHTS else str(model)
        self._labels = config.labels
        self._encoder = TextEncoder(self.folder, config.window, long_texts or LongTextPolicy())
        chosen = choose_backend(self.folder, backend)
        self.backend, self.revision = chosen.value, weights_revision(self.folder)
        self._backend = load_backend(self.folder, config, chosen, threads or available_cpus())
        self.workers = self._backend.workers

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify ``texts``: one prediction per text, in their order.

        Raises:
            TextTooLong: a text is over the limit, and may not be cut.
        """
        encoded = self.encode(texts)
        for index, each in enumerate(encoded):
            if each.over is not None:
                raise TextTooLong(index, each.tokens, each.over)
        windows = [window for each in encoded for window in each.windows]
        rows = iter(self._infer_all(windows))
        return [self.combine(each, [next(rows) for _ in each.windows]) for each in encoded]

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """See :meth:`Classifier.encode`."""
        return self._encoder.encode(texts, on_long_text)

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """See :meth:`Classifier.infer`."""
        return self._backend.infer(batch, alone=alone)

    def combine(self, text: EncodedText, rows: Sequence[Sequence[float]]) -> Prediction:
        """See :meth:`Classifier.combine`: the mean over windows, by their lengths."""
        weights = [len(window) for window in text.windows]
        means = [
            sum(weight * value for weight, value in zip(weights, column, strict=True))
            / sum(weights)
            for column in zip(*rows, strict=True)
        ]
        scores = dict(zip(self._labels, means, strict=True))
        label = max(scores, key=scores.__getitem__)
        return Prediction(
            label, scores[label], scores, text.tokens, len(text.windows), text.truncated
        )

    def _infer_all(self, windows: Sequence[TokenIds]) -> list[list[float]]:
        """Infer in batches of similar lengths, which are padded to little more than they hold."""
        if not windows:
            return []
        order = sorted(range(len(windows)), key=lambda index: len(windows[index]))
        batches = _batches(order, [len(windows[index]) for index in order], self.workers)
        if len(batches) == 1:
            return _in_order(batches, [self.infer([windows[i] for i in order], alone=True)])
        with ThreadPoolExecutor(self.workers) as pool:
            inferred = pool.map(lambda batch: self.infer([windows[i] for i in batch]), batches)
            return _in_order(batches, list(inferred))


def _in_order(
    batches: Sequence[Sequence[int]], answers: Sequence[list[list[float]]]
) -> list[list[float]]:
    """The rows of all batches, by the indices that the batches hold."""
    rows: dict[int, list[float]] = {}
    for batch, answer in zip(batches, answers, strict=True):
        rows.update(zip(batch, answer, strict=True))
    return [rows[index] for index in range(len(rows))]


def _batches(order: Sequence[int], lengths: Sequence[int], workers: int) -> list[list[int]]:
    """One batch if it is small; else several of about equal cost, those of long windows first.

    What is left for the end is short then, and no worker waits long for another (Graham 1969).
    """
    if lengths[-1] * len(lengths) <= BATCH_TOKENS:
        return [list(order)]
    total = sum(lengths)
    limit = total / (math.ceil(total / BATCH_TOKENS / workers) * workers)
    batches: list[list[int]] = []
    tokens = 0
    for index, length in zip(order, lengths, strict=True):
        tokens += length
        padded = (len(batches[-1]) + 1) * length if batches else math.inf
        if padded > limit or padded * (1 - BATCH_PADDING) > tokens:
            batches.append([])
            tokens = length
        batches[-1].append(index)
    return batches[::-1]


def choose_backend(folder: Path, name: BackendName) -> BackendName:
    """What ``auto`` means for a model: ONNX Runtime if it has a graph."""
    if name is not BackendName.AUTO:
        return name
    return BackendName.ONNX if (folder / GRAPH_FILE).exists() else BackendName.TRANSFORMERS


def load_backend(folder: Path, config: ModelConfig, name: BackendName, threads: int) -> Backend:
    """Load what computes; only its own libraries are imported.

    Raises:
        ModelError: the model or the libraries that it needs are not there.
    """
    try:
        module = import_module(f"project.sentiment.{name}_backend")
    except ModuleNotFoundError as error:
        raise ModelError(
            f"backend {name.value!r} needs {error.name}:"
            " pip install -r project/sentiment/requirements.txt"
        ) from error
    backend = getattr(module, f"{name.capitalize()}Backend")
    return cast("Backend", backend(folder, config, threads))


def main(argv: Sequence[str] | None = None) -> int:
    """Print a JSON line per text of ``argv``; returns the exit code."""
    texts = list(sys.argv[1:] if argv is None else argv) or list(SAMPLE_TEXTS)
    for text, prediction in zip(texts, SentimentClassifier().predict(texts), strict=True):
        print(json.dumps({"text": text, **asdict(prediction)}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
