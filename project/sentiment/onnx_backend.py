"""ONNX Runtime: the default on CPUs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from project.sentiment.files import ModelConfig, ModelError
from project.sentiment.memory import bound_malloc, trim_malloc
from project.sentiment.prediction import TokenIds
from project.sentiment.runtime import onnxruntime

Ids = npt.NDArray[np.int64]


class OnnxBackend:
    """Two sessions over one graph: one for a batch that is alone, one for several at once.

    One intra-op thread, called from as many threads as there are cores, beats one session that
    spreads every batch over the cores, and loses to it when there is one batch only:
    ``docs/performance`` has the figures.

    Raises:
        ModelError: the graph or its weights cannot be read.
    """

    def __init__(self, folder: Path, config: ModelConfig, threads: int) -> None:
        bound_malloc()
        graph = folder / config.graph
        self._session = _session(graph, threads=1)
        self._wide = _session(graph, threads) if threads > 1 else self._session
        self._inputs = {each.name for each in self._session.get_inputs()}
        self._pad_id = config.pad_id
        self.workers = threads
        trim_malloc()

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """See :meth:`Classifier.infer`."""
        session = self._wide if alone else self._session
        (logits,) = session.run(["logits"], self._feeds(batch))
        rows: list[list[float]] = softmax(np.asarray(logits, np.float64)).tolist()
        return rows

    def _feeds(self, batch: Sequence[TokenIds]) -> dict[str, Ids]:
        shape = len(batch), max(map(len, batch))
        ids = np.full(shape, self._pad_id, np.int64)
        mask = np.zeros(shape, np.int64)
        for row, window in enumerate(batch):
            ids[row, : len(window)] = window
            mask[row, : len(window)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: value for name, value in feeds.items() if name in self._inputs}


def _session(graph: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    # The arena never gives memory back, and one long batch would set its size for good.
    options.enable_cpu_mem_arena = False
    # Its threads spin for the next operator, not for the next batch: the cores are needed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the library raises a class of its own for every cause
        raise ModelError(f"{graph}: {error}") from error


def softmax(logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Probabilities of [rows, labels]; every row adds up to 1."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))
