"""The batcher without HTTP, as a process that measures when it is told to.

    echo '["dev", 8, 3]' | python -m bench.inprocess sst2/dev.tsv

Reads lines of JSON: a mix, callers, seconds; answers each with the texts per second. Like this a
figure of it can stand beside a figure over HTTP of the same moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import uvloop

from bench.load import make_mixes
from bench.servers import PRODUCT
from project.batching import Batcher
from project.sentiment.memory import bound_malloc
from project.sentiment.model import SentimentClassifier


async def through_batcher(
    batcher: Batcher, texts: Sequence[str], callers: int, seconds: float
) -> float:
    """Texts per second of ``callers`` who send one text after the other.

    From the first answer to the last, as ``post.lua`` counts over HTTP.
    """
    waiting, answers = itertools.cycle(texts), list[float]()
    start = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - start < seconds:
            await batcher.predict([next(waiting)])
            answers.append(time.perf_counter())

    await asyncio.gather(*(caller() for _ in range(callers)))
    within = [answer for answer in answers if answer - start < seconds]
    return (len(within) - 1) / (within[-1] - within[0]) if len(within) > 1 else 0.0


@contextlib.contextmanager
def in_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Such a process, in the product's environment."""
    with subprocess.Popen(  # noqa: S603
        [PRODUCT, "-m", "bench.inprocess", str(file)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        yield process
        assert process.stdin is not None  # noqa: S101
        process.stdin.close()


def ask(process: subprocess.Popen[str], mix: str, callers: int, seconds: float) -> float:
    """One figure of it."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018
    process.stdin.write(json.dumps([mix, callers, seconds]) + "\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    """Answer until the input ends."""
    bound_malloc()
    mixes = make_mixes(Path(sys.argv[1]))
    classifier = SentimentClassifier()
    for line in sys.stdin:
        mix, callers, seconds = json.loads(line)

        async def measure() -> float:
            batcher = Batcher(classifier)
            rate = await through_batcher(batcher, mixes[mix], callers, seconds)  # noqa: B023
            batcher.close()
            return rate

        print(uvloop.run(measure()), flush=True)


if __name__ == "__main__":
    main()
