"""Dynamic batching: many callers' texts, few padded tokens, no waiting while a core is idle.

Work-conserving, as in Clipper's adaptive batching (Crankshaw et al. 2017) less its timer: a free
worker takes what waits at once, and while all are busy, requests collect. A batch is the oldest
window that waits and its neighbours in length, so that nobody starves and little is padded.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from math import inf, isfinite
from time import monotonic
from typing import Protocol

from project.room import Aborted, Room
from project.sentiment.options import BATCH_PADDING, BATCH_TOKENS, OnLongText
from project.sentiment.prediction import (
    Classifier,
    EncodedText,
    Prediction,
    TextTooLong,
    TokenIds,
)

logger = logging.getLogger(__name__)

_Outcome = list[float] | Exception
"""Of a window: the probability of every label, or why there is none."""

CLOSE_SECONDS = 5.0  # for the threads to end: what waits was answered before
LONG_CHARS = 10_000  # tokenising this much takes about a millisecond: more is done on a thread


class DeadlineExceeded(RuntimeError):
    """The model did not come to a request in time."""


class Observer(Protocol):
    """Told what happens, by the inference threads: its methods must be quick."""

    def taken(self, waited: Sequence[float]) -> None:
        """A batch was taken, whose windows had waited so long, in seconds."""

    def inferred(self, lengths: Sequence[int], seconds: float) -> None:
        """A batch was computed, whose windows are so long, in tokens."""


@dataclass(slots=True)
class Timings:
    """Where the time of one request went, in seconds; filled in by :meth:`Batcher.predict`.

    Attributes:
        tokenize: in the tokenizer.
        queue: until its first window was taken, the tokenizer not counted.
        inference: from then to its last row.
    """

    tokenize: float = 0.0
    queue: float = 0.0
    inference: float = 0.0


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large batches get, and how much may wait.

    Attributes:
        tokens: in one batch, padding included; a longer window is a batch of its own.
        padding: the largest share of a batch that may be padding, 0 to 1.
        waiting_requests, waiting_tokens: what may wait or run before new requests are refused, or
            wait outside; a single request may be larger than ``waiting_tokens`` when nothing else
            waits.
        seconds: from a request's arrival to its answer.
    """

    tokens: int = BATCH_TOKENS
    padding: float = BATCH_PADDING
    waiting_requests: int = 256
    waiting_tokens: int = 1_000_000
    seconds: float = 300.0


@dataclass(eq=False, slots=True)
class _Call:
    """One caller's windows: how many are open, and where the rows go."""

    future: asyncio.Future[list[_Outcome]]
    rows: list[_Outcome]
    open: int
    arrived: float  # less what the tokenizer took
    over: bool = False
    taken: float = 0.0


@dataclass(frozen=True, slots=True, order=True)
class _Window:
    """One window that waits; ordered by length, then by arrival."""

    length: int
    number: int
    ids: TokenIds = field(compare=False)
    call: _Call = field(compare=False)
    index: int = field(compare=False)


class Batcher:
    """Feeds a classifier from many concurrent callers of one event loop.

    Args:
        classifier: its ``workers`` is the number of threads that call ``infer``.
    """

    def __init__(
        self,
        classifier: Classifier,
        limits: BatchLimits | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._classifier = classifier
        self._limits = limits or BatchLimits()
        self._observer = observer
        self._numbers = count()
        self._requests = Room(self._limits.waiting_requests, "requests")
        self._tokens = Room(self._limits.waiting_tokens, "tokens")
        self._calls: set[_Call] = set()  # waiting or running; changed on the event loop only
        self._forgetting = False  # so is this one
        self._lock = threading.Condition()
        self._by_length: list[_Window] = []
        self._by_age: deque[_Window] = deque()
        self._started: dict[int, float] = {}  # the running batches, by their workers' numbers
        self._closed = False
        self._threads = [
            threading.Thread(
                target=self._work, args=(number,), name=f"inference-{number}", daemon=True
            )
            for number in range(classifier.workers)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> tuple[int, int]:
        """The requests and the tokens that wait or run: what the limits are for."""
        return self._requests.taken, self._tokens.taken

    @property
    def alive(self) -> bool:
        """Whether every inference thread is there."""
        return all(thread.is_alive() for thread in self._threads)

    def busy_seconds(self) -> float:
        """How long the oldest running batch has been computed; 0.0 if there is none."""
        started = list(self._started.values())
        return monotonic() - min(started) if started else 0.0

    async def predict(
        self,
        texts: Sequence[str],
        on_long_text: OnLongText | None = None,
        timings: Timings | None = None,
        *,
        patient: bool = False,
    ) -> list[Prediction | Exception]:
        """Classify ``texts`` without blocking the event loop.

        A caller that is cancelled is dropped before its windows are computed.

        Args:
            on_long_text: see :meth:`Classifier.encode`.
            timings: is filled in.
            patient: wait for room where others are refused.

        Returns:
            For each text its prediction, or what is wrong with this one: a :class:`TextTooLong`,
            or what the classifier raised.

        Raises:
            Overloaded: too much waits already.
            DeadlineExceeded: the model did not come to it in time.
            Aborted: the batcher was closed or given up.
        """
        timings = timings or Timings()
        arrived = monotonic()
        rows: list[_Outcome] = []
        try:
            async with (
                asyncio.timeout(self._limits.seconds),
                self._requests.take(1, patient=patient),
            ):
                encoding = monotonic()
                encoded = await self._encode(texts, on_long_text)
                timings.tokenize = monotonic() - encoding
                windows = [window for text in encoded for window in text.windows]
                if windows:  # else all texts are refused, for which nobody needs room
                    async with self._tokens.take(sum(map(len, windows)), patient=patient):
                        rows = await self._infer(windows, arrived + timings.tokenize, timings)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not answered in {self._limits.seconds:g} s") from error
        following = iter(rows)
        return [
            self._combine(text, [next(following) for _ in text.windows])
            if text.over is None
            else TextTooLong(index, text.tokens, text.over)
            for index, text in enumerate(encoded)
        ]

    def _combine(self, text: EncodedText, rows: Sequence[_Outcome]) -> Prediction | Exception:
        for row in rows:
            if isinstance(row, Exception):
                return row
        prediction = self._classifier.combine(text, [row for row in rows if isinstance(row, list)])
        if not isfinite(prediction.score):  # JSON has no such numbers, and the queue fails them
            error = ValueError(f"the model's score is {prediction.score}")
            logger.error("a text of %s tokens cannot be classified: %s", text.tokens, error)
            return error
        return prediction

    async def _encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None
    ) -> list[EncodedText]:
        if sum(map(len, texts)) > LONG_CHARS:
            return await asyncio.to_thread(self._classifier.encode, texts, on_long_text)
        return self._classifier.encode(texts, on_long_text)

    def close(self) -> None:
        """Compute what waits, then end the threads; one that hangs ends with the process."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        until = monotonic() + CLOSE_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - monotonic()))

    def abort(self, reason: str) -> None:
        """Fail every request at once, and take no more; a thread that hangs is left alone."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
        self._requests.close(reason)
        self._tokens.close(reason)
        for call in self._calls:
            call.over = True
            if not call.future.done():
                call.future.set_exception(Aborted(reason))

    async def _infer(
        self, windows: Sequence[TokenIds], arrived: float, timings: Timings
    ) -> list[_Outcome]:
        future = asyncio.get_running_loop().create_future()
        call = _Call(future, [[]] * len(windows), len(windows), arrived)
        self._calls.add(call)
        try:
            self._enqueue(windows, call)
            return await call.future
        finally:
            call.over = True
            self._calls.discard(call)
            if call.open and not self._forgetting:
                self._forgetting = True
                asyncio.get_running_loop().call_soon(self._forget)
            if call.taken:
                timings.queue = call.taken - call.arrived
                timings.inference = monotonic() - call.taken

    def _enqueue(self, windows: Sequence[TokenIds], call: _Call) -> None:
        with self._lock:
            if self._closed:  # what is added after the threads have ended stays for ever
                raise Aborted("the batcher is closed")
            for index, ids in enumerate(windows):
                window = _Window(len(ids), next(self._numbers), ids, call, index)
                insort(self._by_length, window)
                self._by_age.append(window)
            self._lock.notify(len(windows))

    def _forget(self) -> None:
        """Drop the windows that nobody waits for any more: no limit counts them.

        Once for all callers that leave together: there may be many windows.
        """
        self._forgetting = False
        with self._lock:
            self._by_length = [window for window in self._by_length if not window.call.over]
            self._by_age = deque(window for window in self._by_age if not window.call.over)

    def _work(self, number: int) -> None:
        while True:
            with self._lock:
                while not (self._by_age or self._closed):
                    self._lock.wait()
                if not self._by_age:
                    return
                batch = self._take()
                if not batch:
                    continue
                alone = not self._started and not self._by_length
                self._started[number] = monotonic()
            self._note_taken(batch)
            outcomes = self._run(batch, alone=alone)
            with self._lock:
                # Before the answers go out: what a lone caller sends next is alone again.
                del self._started[number]
            self._deliver(batch, outcomes)

    def _note_taken(self, batch: Sequence[_Window]) -> None:
        now = monotonic()
        for window in batch:
            window.call.taken = window.call.taken or now
        if self._observer is not None:
            self._observer.taken([now - window.call.arrived for window in batch])

    def _take(self) -> list[_Window]:
        """The oldest window that somebody waits for, and those whose lengths go with it.

        Called with the lock held.
        """
        while self._by_age:
            oldest = self._by_age.popleft()
            at = bisect_left(self._by_length, oldest)
            if at == len(self._by_length) or self._by_length[at] is not oldest:
                continue  # went with an earlier batch
            first, last = self._neighbours(at)
            batch = self._by_length[first:last]
            del self._by_length[first:last]
            return [window for window in batch if not window.call.over]
        return []

    def _neighbours(self, at: int) -> tuple[int, int]:
        """Grow a range around ``at``, each time by the nearer length, within the limits."""
        windows, limits = self._by_length, self._limits
        first, last, tokens = at, at + 1, windows[at].length
        share = -(-len(windows) // len(self._threads))  # leave work for the idle workers
        while last - first < min(share, len(windows)):
            length = windows[at].length
            shorter = length - windows[first - 1].length if first else inf
            longer = windows[last].length - length if last < len(windows) else inf
            grown = last if longer <= shorter else first - 1
            padded = windows[max(grown, last - 1)].length * (last - first + 1)
            tokens += windows[grown].length
            if padded > limits.tokens or padded * (1 - limits.padding) > tokens:
                break
            first, last = min(first, grown), max(last, grown + 1)
        return first, last

    def _run(self, batch: Sequence[_Window], *, alone: bool) -> list[_Outcome]:
        """Infer a batch; where it fails, its halves, so that only the guilty window fails."""
        started = monotonic()
        try:
            rows = self._classifier.infer([window.ids for window in batch], alone=alone)
            if len(rows) != len(batch):
                raise ValueError(f"{len(rows)} rows for {len(batch)} windows")  # noqa: TRY301
        except Exception as error:
            if len(batch) == 1:
                logger.exception("a text of %s tokens cannot be classified", batch[0].length)
                return [error]
            half = len(batch) // 2
            return [
                *self._run(batch[:half], alone=alone),
                *self._run(batch[half:], alone=alone),
            ]
        if self._observer is not None:
            lengths = [window.length for window in batch]
            self._observer.inferred(lengths, monotonic() - started)
        return list(rows)

    def _deliver(self, batch: Sequence[_Window], outcomes: Sequence[_Outcome]) -> None:
        loop = batch[0].call.future.get_loop()
        try:
            loop.call_soon_threadsafe(_resolve, batch, outcomes)
        except RuntimeError:
            logger.warning("%s results came after the event loop was closed", len(batch))


def _resolve(batch: Sequence[_Window], outcomes: Sequence[_Outcome]) -> None:
    """Give each window's row, or the error, to its caller; runs on the event loop."""
    for window, outcome in zip(batch, outcomes, strict=True):
        call = window.call
        if call.future.done():
            continue
        call.rows[window.index] = outcome
        call.open -= 1
        if not call.open:
            call.future.set_result(call.rows)
