"""Between the event loop and the model: inference runs on a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from project.sentiment.prediction import Classifier, Prediction


class Overloaded(RuntimeError):
    """Too many requests wait for the model."""


class Batcher:
    """Feeds a classifier, one request after the other, from many concurrent callers.

    Args:
        max_waiting: requests that may wait or run before further ones are refused.
    """

    def __init__(self, classifier: Classifier, *, max_waiting: int) -> None:
        self._classifier = classifier
        self._max_waiting = max_waiting
        self._waiting = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="inference")

    async def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Classify ``texts`` without blocking the event loop.

        Raises:
            Overloaded: ``max_waiting`` requests are ahead.
        """
        if self._waiting >= self._max_waiting:
            raise Overloaded(f"{self._waiting} requests wait for the model; try again later")
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._thread, self._classifier.predict, texts)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Let the running request finish, drop those that wait, end the thread."""
        self._thread.shutdown(cancel_futures=True)
