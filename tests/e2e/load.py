"""Load on an AsyncAPI, of which it is known what was acknowledged."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable

import httpx


class Load:
    """Submits numbered requests until told to stop; remembers those that were acknowledged.

    No more than 100 a thread, for a container that is down for seconds would not catch up.

    Args:
        body: of the request with a number.
        first: the lowest number.
    """

    def __init__(
        self,
        url: str,
        body: Callable[[int], object] = lambda number: {"number": number},
        first: int = 0,
    ) -> None:
        self.acknowledged: dict[str, int] = {}
        self._url = url
        self._body = body
        self._first = first
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(4)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Submit no more."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, thread: int) -> None:
        with httpx.Client() as client:
            for number in range(self._first + thread * 100, self._first + (thread + 1) * 100):
                if self._stop.is_set():
                    return
                try:
                    answer = client.post(self._url, json=self._body(number))
                    self.acknowledged[answer.raise_for_status().json()["id"]] = number
                except (httpx.HTTPError, json.JSONDecodeError):
                    continue  # not acknowledged: nothing was promised
