"""In-process: our engine against the arithmetic bound and ``transformers.pipeline``.

    python -m bench.engine sst2/dev.tsv

Prints JSON. Every figure is the best of three turns, taken in rotation; all use the same cores.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import pipeline

from project.batching import Batcher
from project.sentiment.cpus import available_cpus
from project.sentiment.data import read_examples
from project.sentiment.files import WEIGHTS
from project.sentiment.model import SentimentClassifier

HIDDEN, LAYERS, INNER = 384, 6, 1536
ROUNDS = 3
SAMPLE = 200  # texts for what is slow: one by one


def flops(lengths: Sequence[int]) -> float:
    """Multiplications and additions of the encoder on texts of ``lengths`` tokens, unpadded."""
    linear = 2 * HIDDEN * (4 * HIDDEN + 2 * INNER)
    return float(sum(LAYERS * (n * linear + 4 * n * n * HIDDEN) for n in lengths))


def sgemm_rate() -> float:
    """Floating-point operations per second of a large single-precision matrix product."""
    left, right = torch.randn(2048, 1536), torch.randn(1536, 1536)
    start, turns = time.perf_counter(), 0
    while time.perf_counter() - start < 1.0:
        torch.mm(left, right)
        turns += 1
    return turns * 2 * 2048 * 1536 * 1536 / (time.perf_counter() - start)


async def through_batcher(
    classifier: SentimentClassifier, texts: Sequence[str], callers: int
) -> None:
    """``callers`` send one text after the other."""
    batcher, waiting = Batcher(classifier), iter(texts)

    async def caller() -> None:
        for text in waiting:
            await batcher.predict([text])

    await asyncio.gather(*(caller() for _ in range(callers)))
    batcher.close()


def measure(file: Path) -> dict[str, float]:
    """Texts per second by name; ``bound`` is what the matrix products of the real tokens allow."""
    logging.disable(logging.WARNING)  # the pipeline advises to use a data set
    torch.set_num_threads(available_cpus())
    texts = [example.text for example in read_examples(file)]
    few = texts[:SAMPLE]
    classifier = SentimentClassifier()
    classify = pipeline("sentiment-analysis", model=str(WEIGHTS), device=-1)
    work: dict[str, tuple[int, Callable[[], object]]] = {
        "pipeline, one by one": (len(few), lambda: [classify(text) for text in few]),
        "pipeline, batches of 32": (len(texts), lambda: classify(texts, batch_size=32)),
        "ours, one by one": (len(few), lambda: [classifier.predict([text]) for text in few]),
        "ours, stream": (len(texts), lambda: classifier.predict(texts)),
        **{
            f"ours, {callers} callers": (
                len(texts),
                lambda callers=callers: asyncio.run(through_batcher(classifier, texts, callers)),
            )
            for callers in (2, 8, 32, 64)
        },
    }
    lengths = [len(text.windows[0]) for text in classifier.encode(texts)]
    rates: dict[str, float] = {"bound": 0.0, **dict.fromkeys(work, 0.0)}
    for _ in range(ROUNDS):
        rates["bound"] = max(rates["bound"], sgemm_rate() * len(texts) / flops(lengths))
        for name, (count, run) in work.items():
            start = time.perf_counter()
            run()
            rates[name] = max(rates[name], count / (time.perf_counter() - start))
    return rates


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    print(json.dumps(measure(parser.parse_args().file)))


if __name__ == "__main__":
    main()
