"""The thread between the event loop and the model."""

from __future__ import annotations

import asyncio

import pytest

from project.batching import Batcher, Overloaded
from tests.helpers import FakeClassifier, wait_until


def test_event_loop_stays_free(classifier: FakeClassifier) -> None:
    """While the model is busy, the loop goes on."""

    async def run() -> None:
        batcher = Batcher(classifier, max_waiting=8)
        classifier.gate.clear()
        running = asyncio.create_task(batcher.predict(["ab"]))
        await asyncio.to_thread(wait_until, lambda: classifier.calls)
        assert not running.done()
        classifier.gate.set()
        assert (await running)[0].score == 0.02
        batcher.close()

    asyncio.run(run())


def test_refuses_beyond_limit(classifier: FakeClassifier) -> None:
    """One request more than may wait is refused; when one has ended, the next is taken."""

    async def run() -> None:
        batcher = Batcher(classifier, max_waiting=2)
        classifier.gate.clear()
        running = [asyncio.create_task(batcher.predict(["a"])) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match="2 requests"):
            await batcher.predict(["b"])
        classifier.gate.set()
        await asyncio.gather(*running)
        assert len(await batcher.predict(["c"])) == 1
        batcher.close()

    asyncio.run(run())


def test_error_reaches_its_caller(classifier: FakeClassifier) -> None:
    """What the model raises is raised to the caller, and the next call works."""

    async def run() -> None:
        batcher = Batcher(classifier, max_waiting=2)
        with pytest.raises(RuntimeError, match="told to"):
            await batcher.predict(["raise"])
        assert len(await batcher.predict(["a"])) == 1
        batcher.close()

    asyncio.run(run())
