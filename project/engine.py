"""The model's life: loaded, watched, replaced when it dies; and the way of a request to it."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from enum import StrEnum, unique

from project.batching import Batcher, BatchLimits, DeadlineExceeded, Timings
from project.monitoring import Metrics
from project.room import Aborted
from project.sentiment.golden import ParityError
from project.sentiment.options import LongTextPolicy, OnLongText
from project.sentiment.prediction import Classifier, Prediction
from project.settings import Settings

logger = logging.getLogger(__name__)

WARM_UP_TEXT = "i like you"
WATCH_SECONDS = 0.25
LAST_WORDS_SECONDS = 1.0
"""Between giving up the requests that wait and ending the process: their answers must get out."""

Load = Callable[[Settings], Classifier]
Die = Callable[[int], None]


class NotReady(RuntimeError):
    """The model is not loaded yet, or could not be."""


@unique
class State(StrEnum):
    """What ``GET /healthcheck`` calls it."""

    LOADING = "loading"
    READY = "ready"
    #: Loaded, but it answers other than it must; stays so.
    FAILED = "failed"
    #: A batch takes longer than any should; the process is about to end.
    STALLED = "stalled"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """Which model answers."""

    name: str
    revision: str
    backend: str


@dataclass(frozen=True, slots=True)
class Status:
    """Whether requests can be answered, and if not, why."""

    state: State
    reason: str | None = None
    model: ModelInfo | None = None


def load_classifier(settings: Settings) -> Classifier:
    """Load the model that the settings name, and check its golden answers.

    Raises:
        ModelError: it cannot be loaded.
        ParityError: it answers other than it did when it was exported.
    """
    # Here, not above: importing the app must stay cheap, and the server must be able to answer
    # 503 while the frameworks below are imported.
    from project.sentiment.files import WEIGHTS
    from project.sentiment.golden import check_golden, read_golden
    from project.sentiment.model import SentimentClassifier

    classifier = SentimentClassifier(
        settings.model or WEIGHTS,
        settings.model_revision,
        backend=settings.backend,
        threads=settings.threads,
        long_texts=LongTextPolicy(settings.on_long_text, max_windows=settings.max_windows),
    )
    check_golden(classifier, read_golden(classifier.folder), settings.parity_tolerance)
    return classifier


def _load_aside(load: Load, settings: Settings) -> asyncio.Future[Classifier]:
    """Load on a thread of its own: an executor's would hold the process until it has loaded."""
    loaded: Future[Classifier] = Future()
    loaded.set_running_or_notify_cancel()  # who gives up waiting does not stop it

    def run() -> None:
        try:
            loaded.set_result(load(settings))
        except BaseException as error:
            loaded.set_exception(error)

    threading.Thread(target=run, name="load", daemon=True).start()
    return asyncio.wrap_future(loaded)


class Engine:
    """Loads the model, answers with it, and tells the truth about it.

    Args:
        load: called on a thread; again when an inference thread has died.
        die: ends the process, with an exit code.
    """

    def __init__(
        self, settings: Settings, load: Load, metrics: Metrics, die: Die = os._exit
    ) -> None:
        self._settings = settings
        self._load = load
        self._metrics = metrics
        self._die = die
        self._batcher: Batcher | None = None
        self._status = Status(State.LOADING, "the model is being loaded")
        self._settled = asyncio.Event()  # ready, or failed for good

    @property
    def model(self) -> ModelInfo | None:
        """The model that answers, or answered last."""
        return self._status.model

    async def run(self) -> None:
        """Keep a model that answers; returns when there will be none."""
        while await self._start():
            if not await self._watch():
                return

    def status(self) -> Status:
        """As it is at this moment, not when somebody looked last."""
        batcher, status = self._batcher, self._status
        if status.state is not State.READY or batcher is None:
            return status
        if not batcher.alive:
            return Status(State.LOADING, "an inference thread has died", status.model)
        seconds = batcher.busy_seconds()
        if seconds > self._settings.max_batch_seconds:
            return Status(State.STALLED, self._stalled(seconds), status.model)
        return status

    async def classify(
        self,
        texts: Sequence[str],
        on_long_text: OnLongText | None,
        timings: Timings,
        *,
        patient: bool = False,
    ) -> list[Prediction | Exception]:
        """Classify ``texts``: one prediction, or error, per text, in their order.

        See :meth:`Batcher.predict`.

        Args:
            patient: wait, as long as a request may, where others are refused: until the model is
                ready, in turn for room, and once for the model that replaces one that died.

        Raises:
            NotReady: the model is not loaded.
            Overloaded: too much waits.
            DeadlineExceeded: the model did not come to it in time.
            Aborted: the model was given up meanwhile.
        """
        if not patient:
            return await self._predict(texts, on_long_text, timings)
        seconds = self._settings.request_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._insist(texts, on_long_text, timings)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not answered in {seconds:g} s") from error

    def close(self) -> None:
        """Compute what waits, and end the inference threads, unless they hang."""
        if self._batcher is not None and self.status().state is State.READY:
            self._batcher.close()

    async def _insist(
        self, texts: Sequence[str], on_long_text: OnLongText | None, timings: Timings
    ) -> list[Prediction | Exception]:
        await self._settled.wait()
        try:
            return await self._predict(texts, on_long_text, timings, patient=True)
        except Aborted:
            await self._settled.wait()
        # Its tokens were the old model's: the new one may have others.
        return await self._predict(texts, on_long_text, timings, patient=True)

    async def _predict(
        self,
        texts: Sequence[str],
        on_long_text: OnLongText | None,
        timings: Timings,
        *,
        patient: bool = False,
    ) -> list[Prediction | Exception]:
        if self._batcher is None:
            raise NotReady(self._status.reason)
        return await self._batcher.predict(texts, on_long_text, timings, patient=patient)

    async def _start(self) -> bool:
        try:
            classifier = await _load_aside(self._load, self._settings)
            await self._warm_up(classifier)
        except ParityError as error:
            logger.error("%s", error)  # noqa: TRY400  (no trace: it is the model's fault)
            self._status = Status(State.FAILED, str(error))
            self._settled.set()
            return False
        except Exception as error:
            logger.debug("where it failed", exc_info=True)
            logger.critical("the model cannot be loaded: %s: %s", type(error).__name__, error)
            self._die(1)
            return False
        return True

    async def _warm_up(self, classifier: Classifier) -> None:
        """The first answer is the slowest: nobody should wait for it."""
        settings = self._settings
        limits = BatchLimits(
            tokens=settings.batch_tokens,
            waiting_requests=settings.max_waiting_requests,
            waiting_tokens=settings.max_waiting_tokens,
            seconds=settings.request_timeout_seconds,
        )
        batcher = Batcher(classifier, limits, self._metrics)
        try:
            (first,) = await batcher.predict([WARM_UP_TEXT])
            if isinstance(first, Exception):
                raise first  # noqa: TRY301
        except BaseException:
            batcher.abort("the model does not answer")
            raise
        self._metrics.watch(lambda: batcher.waiting)
        self._metrics.ready(classifier, first.scores)
        self._batcher = batcher
        model = ModelInfo(classifier.name, classifier.revision, classifier.backend)
        self._status = Status(State.READY, model=model)
        self._settled.set()
        logger.info("ready: %s %s on %s", model.name, model.revision, model.backend)

    async def _watch(self) -> bool:
        """Until the model dies or hangs; returns whether another one may take its place."""
        while (status := self.status()).state is State.READY:  # noqa: ASYNC110  (a thread sets none)
            await asyncio.sleep(WATCH_SECONDS)
        batcher, self._batcher = self._batcher, None
        self._settled.clear()
        self._status = status
        if batcher is not None:
            batcher.abort(f"given up: {status.reason}")
        if status.state is State.LOADING:
            logger.error("%s; the model is loaded again", status.reason)
            return True
        logger.critical("%s; the process ends, to be started again", status.reason)
        await asyncio.sleep(LAST_WORDS_SECONDS)
        self._die(1)
        return False

    def _stalled(self, seconds: float) -> str:
        limit = self._settings.max_batch_seconds
        return f"a batch has been computed for {seconds:.1f} s, {limit:g} s are allowed"
