"""The batcher without HTTP, as a process that measures when it is told to.

    echo '["dev", 8, 1, 3, 0]' | python -m bench.inprocess sst2/dev.tsv

Reads lines of JSON: a mix, callers, and a turn (warm-up, window, first text); answers each with
the texts per second. Like this a
figure of it can stand beside a figure over HTTP of the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

import uvloop

from bench import IMAGE_ENV
from bench.load import Turn, make_mixes
from bench.servers import PRODUCT
from project.batching import Batcher
from project.sentiment.memory import bound_malloc
from project.sentiment.model import SentimentClassifier
from project.sentiment.prediction import Prediction
from project.server import let_inference_run


async def through_batcher(
    batcher: Batcher, texts: Sequence[str], callers: int, turn: Turn
) -> float:
    """Texts per second of ``callers`` who send one text after the other.

    Counted within the turn's window, as ``post.lua`` does over HTTP.
    """
    waiting = itertools.islice(itertools.cycle(texts), turn.first, None)
    start, answers = time.perf_counter(), 0

    async def caller() -> None:
        nonlocal answers
        seconds = 0.0
        while seconds < turn.seconds:
            (answer,) = await batcher.predict([next(waiting)])
            seconds = time.perf_counter() - start
            answers += isinstance(answer, Prediction) and turn.warm_up <= seconds < turn.seconds

    await asyncio.gather(*(caller() for _ in range(callers)))
    return answers / turn.window


@contextlib.contextmanager
def in_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Such a process, in the product's environment."""
    with subprocess.Popen(  # noqa: S603
        [PRODUCT, "-m", "bench.inprocess", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **IMAGE_ENV},
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None  # noqa: S101
        process.stdin.close()


def ask(process: subprocess.Popen[str], mix: str, callers: int, turn: Turn) -> float:
    """One figure of it."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
    process.stdin.write(json.dumps([mix, callers, *astuple(turn)]) + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Answer until the input ends."""
    let_inference_run()
    bound_malloc()
    mixes = make_mixes(Path(sys.argv[1]))
    classifier = SentimentClassifier()
    for line in sys.stdin:
        mix, callers, *turn = json.loads(line)

        async def measure() -> float:
            batcher = Batcher(classifier)
            rate = await through_batcher(batcher, mixes[mix], callers, Turn(*turn))  # noqa: B023
            batcher.close()
            return rate

        print(uvloop.run(measure()), flush=True)


if __name__ == "__main__":
    main()
