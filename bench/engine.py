"""In-process: our engine against the arithmetic bound and ``transformers.pipeline``, and in 8 bits.

    python -m bench.engine sst2/dev.tsv --output docs/performance

Every figure is taken in every round, each in another order, after a round that is not counted; the
medians count, and ratios are medians of the ratios within each round. The bound of a round is the
median of products that are timed between all its figures: torch's, and ONNX Runtime's, which on
some CPUs are twice as fast. All use the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
import uvloop
from onnx import TensorProto, helper, numpy_helper
from transformers import pipeline

from bench import BOUND, ONNX_BOUND, PIPELINE
from bench.load import make_mixes
from project.batching import Batcher
from project.sentiment.cpus import available_cpus
from project.sentiment.data import read_examples
from project.sentiment.export import export
from project.sentiment.files import WEIGHTS
from project.sentiment.memory import bound_malloc
from project.sentiment.model import SentimentClassifier
from project.sentiment.prediction import Prediction
from project.sentiment.runtime import onnxruntime

HIDDEN, LAYERS, INNER = 384, 6, 1536
PRODUCT = 2048, 1536, 1536  # rows, inner, columns of a large matrix product
ONE_BY_ONE = 100  # texts
CALLERS = (2, 8, 32, 64)


@dataclass(frozen=True, slots=True)
class Work:
    """What is timed: so many texts of so many tokens."""

    texts: int
    run: Callable[[], object]


def flops(lengths: Sequence[int]) -> float:
    """Multiplications and additions of the encoder on texts of ``lengths`` tokens, unpadded."""
    linear = 2 * HIDDEN * (4 * HIDDEN + 2 * INNER)
    return float(sum(LAYERS * (n * linear + 4 * n * n * HIDDEN) for n in lengths))


def torch_product() -> Callable[[], object]:
    """A large single-precision matrix product, by torch."""
    rows, inner, columns = PRODUCT
    left, right = torch.randn(rows, inner), torch.randn(inner, columns)
    return lambda: torch.mm(left, right)


def onnx_product(threads: int) -> Callable[[], object]:
    """The same by ONNX Runtime, which keeps the right matrix in its kernels' layout."""
    rows, inner, columns = PRODUCT
    chance = np.random.default_rng(0)
    left = chance.standard_normal((rows, inner), np.float32)
    right = chance.standard_normal((inner, columns), np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["left", "right"], ["product"])], "product",
        [helper.make_tensor_value_info("left", TensorProto.FLOAT, [rows, inner])],
        [helper.make_tensor_value_info("product", TensorProto.FLOAT, [rows, columns])],
        [numpy_helper.from_array(right, "right")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")  # for what is timed next
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left})


def sgemm_rate(multiply: Callable[[], object], seconds: float) -> float:
    """Floating-point operations per second of a product of the shape ``PRODUCT``."""
    start, turns = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        multiply()
        turns += 1
    return turns * 2 * math.prod(PRODUCT) / (time.perf_counter() - start)


async def through_batcher(
    classifier: SentimentClassifier, texts: Sequence[str], callers: int
) -> None:
    """``callers`` send one text after the other."""
    batcher, waiting = Batcher(classifier), iter(texts)

    async def caller() -> None:
        for text in waiting:
            (answer,) = await batcher.predict([text])
            if not isinstance(answer, Prediction):
                raise TypeError(f"{text!r}: {answer}")

    await asyncio.gather(*(caller() for _ in range(callers)))
    await asyncio.to_thread(batcher.close)


def work_of(name: str, classifier: SentimentClassifier, texts: Sequence[str]) -> dict[str, Work]:
    """One by one, as a stream, and from concurrent callers."""
    few = texts[:ONE_BY_ONE]
    work = {
        f"{name}, one by one": Work(len(few), lambda: [classifier.predict([t]) for t in few]),
        f"{name}, stream": Work(len(texts), lambda: classifier.predict(texts)),
    }
    for callers in CALLERS:
        work[f"{name}, {callers} callers"] = Work(
            len(texts),
            lambda callers=callers: uvloop.run(through_batcher(classifier, texts, callers)),
        )
    return work


def measure(texts: Sequence[str], int8: SentimentClassifier, rounds: int) -> dict[str, list[float]]:
    """Texts per second by name and round; the bounds: what the products of the tokens allow."""
    logging.disable(logging.WARNING)  # the pipeline advises to use a data set
    torch.set_num_threads(available_cpus())
    classifier, few = SentimentClassifier(), texts[:ONE_BY_ONE]
    classify = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
    work = {
        PIPELINE: Work(len(few), lambda: [classify(text) for text in few]),
        "pipeline, batches of 32": Work(len(texts), lambda: classify(texts, batch_size=32)),
        **work_of("ours", classifier, texts),
        **work_of("8 bits", int8, texts),
    }
    needed = flops([len(text.windows[0]) for text in classifier.encode(texts)]) / len(texts)
    products = {BOUND: torch_product(), ONNX_BOUND: onnx_product(available_cpus())}
    rates: dict[str, list[float]] = {name: [] for name in (*products, *work)}
    chance, names = random.Random(0), list(work)  # noqa: S311
    for number in range(rounds + 1):
        chance.shuffle(names)
        bounds: dict[str, list[float]] = {name: [] for name in products}
        for name in names:
            for bound, multiply in products.items():
                bounds[bound].append(sgemm_rate(multiply, 0.2) / needed)
            start = time.perf_counter()
            work[name].run()
            if number:
                rates[name].append(work[name].texts / (time.perf_counter() - start))
        if number:
            for bound, values in bounds.items():
                rates[bound].append(median(values))
    return rates


def int8_accuracy(file: Path, int8: SentimentClassifier) -> dict[str, float]:
    """What 8 bits change: labels, probabilities, accuracy, and answers by their batch."""
    examples = read_examples(file)
    texts, labels = [each.text for each in examples], [each.label for each in examples]
    full, eighth = SentimentClassifier().predict(texts), int8.predict(texts)
    alone = [int8.predict([text])[0] for text in texts]

    def accuracy(predictions: Sequence[Prediction]) -> float:
        positive = (each.scores["POSITIVE"] > 0.5 for each in predictions)
        return sum(one == bool(other) for one, other in zip(positive, labels, strict=True)) / len(
            labels
        )

    def apart(ours: Sequence[Prediction], others: Sequence[Prediction]) -> list[float]:
        return [
            abs(one.scores["POSITIVE"] - other.scores["POSITIVE"])
            for one, other in zip(ours, others, strict=True)
        ]

    return {
        "texts": len(texts),
        "accuracy": accuracy(full),
        "int8_accuracy": accuracy(eighth),
        "labels_changed": sum(a.label != b.label for a, b in zip(full, eighth, strict=True)),
        "largest_difference": max(apart(full, eighth)),
        "mean_difference": sum(apart(full, eighth)) / len(texts),
        "difference_by_batch": max(apart(alone, eighth)),
    }


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--output", type=Path, required=True, help="folder")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    bound_malloc()
    with tempfile.TemporaryDirectory() as folder:
        export(str(WEIGHTS), Path(folder), int8=True)
        int8 = SentimentClassifier(folder)
        raw = {
            "rates": measure(make_mixes(options.file)["dev"], int8, options.rounds),
            "int8": int8_accuracy(options.file, int8),
        }
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "engine.json").write_text(json.dumps(raw, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
