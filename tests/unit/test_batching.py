"""The batcher: what goes together, what is refused, what fails alone."""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from project.batching import Batcher, BatchLimits, DeadlineExceeded
from project.room import Aborted, Overloaded
from project.sentiment.options import OnLongText
from project.sentiment.prediction import EncodedText, Prediction, TokenIds
from tests.helpers import DEADLINE, FakeClassifier, eventually

LIMITS = BatchLimits(tokens=100, padding=0.2, waiting_requests=1000, waiting_tokens=100_000)


def with_batcher(
    classifier: FakeClassifier,
    body: Callable[[Batcher], Awaitable[None]],
    limits: BatchLimits = LIMITS,
) -> None:
    """Run ``body`` with a batcher that is closed afterwards."""

    async def run() -> None:
        batcher = Batcher(classifier, limits)
        try:
            await body(batcher)
        finally:
            classifier.gate.set()
            await asyncio.to_thread(batcher.close)

    asyncio.run(run())


async def predicted(batcher: Batcher, texts: Sequence[str]) -> list[Prediction]:
    """The predictions for texts none of which is too long."""
    outcomes = await batcher.predict(texts)
    predictions = [each for each in outcomes if isinstance(each, Prediction)]
    assert len(predictions) == len(outcomes)
    return predictions


async def hold(batcher: Batcher, classifier: FakeClassifier) -> asyncio.Task[object]:
    """Occupy the only worker, so that what comes next collects."""
    classifier.gate.clear()
    holding: asyncio.Task[object] = asyncio.ensure_future(batcher.predict(["hold"]))
    await eventually(lambda: classifier.calls == [["hold"]])
    return holding


def test_event_loop_stays_free(classifier: FakeClassifier) -> None:
    """While the model is busy, the loop goes on."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        assert not holding.done()
        classifier.gate.set()
        await holding

    with_batcher(classifier, body)


def test_idle_engine_starts_at_once(classifier: FakeClassifier) -> None:
    """A lone text is a batch of its own; what comes meanwhile is one batch."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = [asyncio.ensure_future(batcher.predict([text])) for text in ("aa", "bb", "cc")]
        await asyncio.sleep(0)
        classifier.gate.set()
        await asyncio.gather(holding, *waiting)
        assert classifier.calls == [["hold"], ["aa", "bb", "cc"]]

    with_batcher(classifier, body)


def test_oldest_goes_first_with_its_like(classifier: FakeClassifier) -> None:
    """The oldest text and those of its length; a long one waits its turn, not longer."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        texts = ["a" * 10, "b" * 90, "c" * 10, "d" * 11, "e" * 90]
        waiting = [asyncio.ensure_future(batcher.predict([text])) for text in texts]
        await asyncio.sleep(0)
        classifier.gate.set()
        await asyncio.gather(holding, *waiting)
        assert classifier.calls[1:] == [["a" * 10, "c" * 10, "d" * 11], ["b" * 90], ["e" * 90]]

    with_batcher(classifier, body)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (BatchLimits(waiting_requests=2), "2 requests wait"),
        (BatchLimits(waiting_tokens=8), "7 tokens wait"),
    ],
)
def test_refuses_beyond_limit(
    classifier: FakeClassifier, limits: BatchLimits, message: str
) -> None:
    """What may not wait is refused; when something has ended, the next is taken."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = asyncio.ensure_future(batcher.predict(["abc"]))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded, match=message):
            await batcher.predict(["de"])
        classifier.gate.set()
        await asyncio.gather(holding, waiting)
        assert len(await batcher.predict(["a request of its own may be larger"])) == 1

    with_batcher(classifier, body, limits)


async def outside(batcher: Batcher, text: str) -> asyncio.Task[list[Prediction | Exception]]:
    """A patient caller who has found no room."""
    task = asyncio.ensure_future(batcher.predict([text], patient=True))
    await asyncio.sleep(0)
    assert not task.done()
    return task


def test_patient_wait_in_order(classifier: FakeClassifier) -> None:
    """A large one is not passed by small ones, patient or not, and is tokenised once."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = [await outside(batcher, text) for text in ("large!", "b", "also large")]
        for _ in range(2):
            with pytest.raises(Overloaded, match="4 tokens wait"):
                await batcher.predict(["c"])
        assert batcher.waiting == (4, 4)
        classifier.gate.set()
        await asyncio.gather(holding, *waiting)
        assert classifier.calls == [["hold"], ["large!"], ["b"], ["also large"]]
        assert classifier.encoded == ["hold", "large!", "b", "also large", "c", "c"]
        assert batcher.waiting == (0, 0)

    with_batcher(classifier, body, BatchLimits(waiting_tokens=8))


def test_patient_wait_before_they_are_tokenised(classifier: FakeClassifier) -> None:
    """Where too many requests wait already, the next ones cost nothing but their texts."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = [await outside(batcher, text) for text in ("a", "bb", "cc")]
        assert classifier.encoded == ["hold"]
        classifier.gate.set()
        await asyncio.gather(holding, *waiting)
        assert classifier.calls == [["hold"], ["a"], ["bb"], ["cc"]]

    with_batcher(classifier, body, BatchLimits(waiting_requests=1))


def test_patient_who_leaves_lets_the_next_in(classifier: FakeClassifier) -> None:
    """Whoever is cancelled outside holds up nobody."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        leaving = await outside(batcher, "large!")
        staying = await outside(batcher, "b")
        leaving.cancel()
        await eventually(lambda: batcher.waiting == (2, 5))
        classifier.gate.set()
        await asyncio.gather(holding, staying)
        assert leaving.cancelled()

    with_batcher(classifier, body, BatchLimits(waiting_tokens=8))


def test_patient_have_a_deadline(classifier: FakeClassifier) -> None:
    """Who waits outside waits no longer than who waits inside."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = await outside(batcher, "large!")
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await waiting
        classifier.gate.set()
        with suppress(DeadlineExceeded):
            await holding
        assert batcher.waiting == (0, 0)

    with_batcher(classifier, body, BatchLimits(waiting_tokens=8, seconds=0.05))


def test_abort_fails_those_outside(classifier: FakeClassifier) -> None:
    """Also the one whose turn has just come, and whoever comes later."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        waiting = [await outside(batcher, text) for text in ("large!", "b")]
        holding.cancel()
        await asyncio.sleep(0)  # which calls the first of them
        batcher.abort("given up")
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [Aborted, Aborted]
        with pytest.raises(Aborted, match="given up"):
            await batcher.predict(["c"], patient=True)
        assert batcher.waiting == (0, 0)

    with_batcher(classifier, body, BatchLimits(waiting_tokens=8))


def test_poison_fails_alone(classifier: FakeClassifier) -> None:
    """A text that the model cannot take gets the error, and nobody else in its batch."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        texts = ["abcdef", "raise!", "ghijkl", "mnopqr"]
        waiting = [asyncio.ensure_future(batcher.predict([text])) for text in texts]
        await asyncio.sleep(0)
        classifier.gate.set()
        await holding
        outcomes = [outcome for (outcome,) in await asyncio.gather(*waiting)]
        assert [isinstance(each, RuntimeError) for each in outcomes] == [False, True, False, False]

    with_batcher(classifier, body)


def test_poison_fails_alone_in_its_list(classifier: FakeClassifier) -> None:
    """The error lies in the place of its text, between the predictions for the others."""

    async def body(batcher: Batcher) -> None:
        first, second, third = await batcher.predict(["abcdef", "raise!", "ghi"])
        assert isinstance(second, RuntimeError)
        assert [each.tokens for each in (first, third) if isinstance(each, Prediction)] == [6, 3]

    with_batcher(classifier, body)


class Undecided(FakeClassifier):
    """Answers to texts of three tokens with what is no number."""

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """As before, or not a number."""
        rows = super().infer(batch, alone=alone)
        return [[math.nan] if len(ids) == 3 else row for ids, row in zip(batch, rows, strict=True)]


def test_no_number_fails_alone() -> None:
    """A score that JSON cannot hold is the error of its text."""

    async def body(batcher: Batcher) -> None:
        first, second = await batcher.predict(["ab", "abc"])
        assert isinstance(first, Prediction)
        assert isinstance(second, ValueError)
        assert str(second) == "the model's score is nan"

    with_batcher(Undecided(), body)


def test_cancelled_is_not_computed(classifier: FakeClassifier) -> None:
    """A caller that leaves before its turn costs nothing."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        leaving = asyncio.ensure_future(batcher.predict(["leaving"]))
        staying = asyncio.ensure_future(batcher.predict(["staying"]))
        await asyncio.sleep(0)
        leaving.cancel()
        with suppress(asyncio.CancelledError):
            await leaving
        classifier.gate.set()
        await asyncio.gather(holding, staying)
        assert classifier.calls == [["hold"], ["staying"]]

    with_batcher(classifier, body)


def test_cancelled_keep_nothing(classifier: FakeClassifier) -> None:
    """While the model hangs, callers who give up and come again do not add up."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        staying = asyncio.ensure_future(batcher.predict(["stays"]))
        leaving = [asyncio.ensure_future(batcher.predict(["leaves", "too"])) for _ in range(9)]
        await asyncio.sleep(0)
        assert len(batcher._by_length) == len(batcher._by_age) == 19
        for each in leaving:
            each.cancel()
        await asyncio.wait(leaving)
        assert len(batcher._by_length) == len(batcher._by_age) == 1
        classifier.gate.set()
        await asyncio.gather(holding, staying)
        assert classifier.calls == [["hold"], ["stays"]]

    with_batcher(classifier, body)


def test_deadline(classifier: FakeClassifier) -> None:
    """A request that is not answered in time fails, and is not computed afterwards."""

    async def body(batcher: Batcher) -> None:
        holding = await hold(batcher, classifier)
        with pytest.raises(DeadlineExceeded, match=r"0\.05 s"):
            await batcher.predict(["late"])
        classifier.gate.set()
        with suppress(DeadlineExceeded):
            await holding
        await batcher.predict(["next"])
        assert classifier.calls == [["hold"], ["next"]]

    with_batcher(classifier, body, BatchLimits(seconds=0.05))


class Threaded(FakeClassifier):
    """Notes the thread of every tokenisation."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: list[threading.Thread] = []

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """As before, with a note."""
        self.threads.append(threading.current_thread())
        return super().encode(texts, on_long_text)


@pytest.mark.parametrize(
    ("texts", "aside"), [(["a" * 10_000], False), (["a" * 5_000, "a" * 5_001], True)]
)
def test_large_texts_are_tokenised_off_the_loop(texts: list[str], aside: bool) -> None:
    """Much text is tokenised on a thread of its own, little on the loop's: a thread costs more."""
    classifier = Threaded()

    async def body(batcher: Batcher) -> None:
        predictions = await predicted(batcher, texts)
        assert [each.tokens for each in predictions] == [len(text) for text in texts]
        (thread,) = classifier.threads
        assert (thread is not threading.current_thread()) is aside

    with_batcher(classifier, body)


class Windowed(FakeClassifier):
    """Reads three characters at once."""

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """Windows without overlap."""
        return [
            EncodedText(
                tuple(tuple(map(ord, text[i : i + 3])) for i in range(0, len(text), 3)), len(text)
            )
            for text in texts
        ]


def test_windows_are_put_together() -> None:
    """Every window of a long text comes back to its text."""

    async def body(batcher: Batcher) -> None:
        first, second = await predicted(batcher, ["abcdefg", "x"])
        assert (first.windows, second.windows) == (3, 1)
        assert first.score == pytest.approx((0.03 + 0.03 + 0.01) / 3)
        assert second.score == 0.01

    with_batcher(Windowed(), body)


class Recording(FakeClassifier):
    """Keeps the shape of every batch."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.shapes: list[list[int]] = []
        self.alone: list[bool] = []
        self._halves = threading.local()

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """As before, with notes: of the batches that were taken, not of the halves of one."""
        halves = getattr(self._halves, "left", 0)
        if not halves:
            self.shapes.append([len(each) for each in batch])
            self.alone.append(alone)
        self._halves.left = max(0, halves - 1)
        try:
            return super().infer(batch, alone=alone)
        except RuntimeError:
            self._halves.left += 2 if len(batch) > 1 else 0
            raise


def test_lone_batch_may_use_every_core() -> None:
    """Only a batch that nothing runs beside or waits behind is said to be alone."""
    classifier = Recording(workers=2)

    async def body(batcher: Batcher) -> None:
        await batcher.predict(["a"])
        classifier.gate.clear()
        first = asyncio.ensure_future(batcher.predict(["b"]))
        await eventually(lambda: len(classifier.calls) == 2)
        second = asyncio.ensure_future(batcher.predict(["c"]))
        await eventually(lambda: len(classifier.calls) == 3)
        classifier.gate.set()
        await asyncio.gather(first, second)
        assert classifier.alone == [True, True, False]

    with_batcher(classifier, body)


def test_lone_caller_stays_alone() -> None:
    """Who sends one text after the other gets every core for each of them."""
    classifier = Recording(workers=2)

    async def body(batcher: Batcher) -> None:
        for _ in range(500):
            await batcher.predict(["a"])
        assert classifier.alone == [True] * 500

    with_batcher(classifier, body)


class Forgetful(FakeClassifier):
    """Answers to all windows of a batch but the last."""

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """One row too few."""
        return super().infer(batch, alone=alone)[:-1]


def test_missing_row_is_an_error() -> None:
    """A model that answers too little fails its callers, who would wait for ever otherwise."""

    async def body(batcher: Batcher) -> None:
        outcomes = await asyncio.gather(*(batcher.predict([text]) for text in ("a", "b")))
        assert [type(outcome) for (outcome,) in outcomes] == [ValueError, ValueError]

    with_batcher(Forgetful(), body)


@pytest.mark.parametrize("texts", [["a"], ["a" * 20_000]])
def test_closed_takes_no_more(classifier: FakeClassifier, texts: list[str]) -> None:
    """After the end a request is refused at once, not when its time is over."""

    async def body(batcher: Batcher) -> None:
        await asyncio.to_thread(batcher.close)
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Aborted, match="closed"):
                await batcher.predict(texts)
        assert batcher.waiting == (0, 0)

    with_batcher(classifier, body)


def test_closed_while_tokenising() -> None:
    """Who comes out of the tokeniser after the end is refused as well."""
    classifier = Slow()

    async def body(batcher: Batcher) -> None:
        waiting = asyncio.ensure_future(batcher.predict(["a" * 20_000]))
        await eventually(classifier.encoding.is_set)
        await asyncio.to_thread(batcher.close)
        classifier.resume.set()
        async with asyncio.timeout(DEADLINE):
            with pytest.raises(Aborted, match="closed"):
                await waiting
        assert batcher.waiting == (0, 0)

    with_batcher(classifier, body)


class Slow(FakeClassifier):
    """Tokenises when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.encoding, self.resume = threading.Event(), threading.Event()

    def encode(
        self, texts: Sequence[str], on_long_text: OnLongText | None = None
    ) -> list[EncodedText]:
        """As before, but later."""
        self.encoding.set()
        assert self.resume.wait(DEADLINE)
        return super().encode(texts, on_long_text)


@settings(max_examples=60, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(1, 150), min_size=1, max_size=6), max_size=25),
    poison=st.sets(st.integers(0, 24), max_size=3),
    cancelled=st.sets(st.integers(0, 24), max_size=3),
    workers=st.integers(1, 3),
    tokens=st.integers(1, 400),
    padding=st.floats(0, 0.9),
)
def test_every_caller_gets_its_own(
    requests: list[list[int]],
    poison: set[int],
    cancelled: set[int],
    workers: int,
    tokens: int,
    padding: float,
) -> None:
    """Whatever comes: own rows in own order, budgets kept, the guilty alone, and no one stuck."""
    classifier = Recording(workers)
    limits = BatchLimits(tokens, padding, waiting_requests=1000, waiting_tokens=10**9)
    numbers = itertools.count()
    texts = [
        ["raise" if next(numbers) in poison else "x" * length for length in lengths]
        for lengths in requests
    ]

    async def body(batcher: Batcher) -> None:
        tasks = [asyncio.ensure_future(batcher.predict(each)) for each in texts]
        await asyncio.sleep(0)
        for number in cancelled & set(range(len(tasks))):
            tasks[number].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, outcome in enumerate(outcomes):
            if isinstance(outcome, asyncio.CancelledError):
                assert number in cancelled
                continue
            assert not isinstance(outcome, BaseException)
            check_outcomes(texts[number], outcome)

    with_batcher(classifier, body, limits)
    for shape in classifier.shapes:
        padded = max(shape) * len(shape)
        assert len(shape) == 1 or padded <= tokens
        # Who leaves leaves a gap in the batch.
        assert cancelled or len(shape) == 1 or padded * (1 - padding) <= sum(shape) * (1 + 1e-9)


def check_outcomes(texts: Sequence[str], outcomes: Sequence[Prediction | Exception]) -> None:
    """Every text has its own prediction, or its own error."""
    for text, outcome in zip(texts, outcomes, strict=True):
        if text == "raise":
            assert isinstance(outcome, RuntimeError)
        else:
            assert isinstance(outcome, Prediction)
            assert (outcome.tokens, outcome.score) == (len(text), min(1.0, len(text) / 100))


class Crowded(FakeClassifier):
    """While it computes a batch, the next wave of texts arrives.

    Attributes:
        waiting: texts, the oldest first.
        passed_over: batches without the oldest text that waited.
    """

    def __init__(self, waves: Sequence[Sequence[str]]) -> None:
        super().__init__()
        self.waiting: list[str] = []
        self.passed_over: list[list[str]] = []
        self.tasks: list[asyncio.Task[object]] = []
        self._waves = iter(waves)

    async def arrive(self, batcher: Batcher) -> None:
        """Submit the next wave."""
        for text in next(self._waves, ()):
            self.tasks.append(asyncio.ensure_future(batcher.predict([text])))
            self.waiting.append(text)
        await asyncio.sleep(0)  # let them be tokenised and enqueued

    def serve(self, batcher: Batcher) -> None:
        """Let a wave arrive at ``batcher``, from the loop that runs, with every batch."""
        self._batcher, self._loop = batcher, asyncio.get_running_loop()

    def infer(self, batch: Sequence[TokenIds], *, alone: bool = False) -> list[list[float]]:
        """As before, once the next wave has arrived."""
        taken = ["".join(map(chr, ids)) for ids in batch]
        if self.waiting[0] not in taken:
            self.passed_over.append(taken)
        self.waiting = [text for text in self.waiting if text not in taken]
        arriving = asyncio.run_coroutine_threadsafe(self.arrive(self._batcher), self._loop)
        arriving.result(DEADLINE)
        return super().infer(batch, alone=alone)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=8), min_size=1, max_size=12),
    tokens=st.integers(1, 400),
    padding=st.floats(0, 0.9),
)
def test_nobody_starves(lengths: list[list[int]], tokens: int, padding: float) -> None:
    """Whatever arrives meanwhile, every batch has the oldest text that waits in it."""
    names = map(chr, itertools.count(0x4E00))  # every text is another
    classifier = Crowded([[next(names) * length for length in wave] for wave in lengths])

    async def body(batcher: Batcher) -> None:
        classifier.serve(batcher)
        await classifier.arrive(batcher)
        await eventually(lambda: not classifier.waiting and all(t.done() for t in classifier.tasks))
        assert len(classifier.tasks) == sum(map(len, lengths))
        assert classifier.passed_over == []

    limits = BatchLimits(tokens, padding, waiting_requests=1000, waiting_tokens=10**9)
    with_batcher(classifier, body, limits)
