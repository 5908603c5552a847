"""What is asked of the engine, and whether the figures meet it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench import BOUND, CONCURRENCIES, IN_PROCESS, NULL, ONNX_BOUND, OURS, PIPELINE, TUTORIAL
from bench.load import percentile

DIFFERENCE, HEALTH_MS = 1e-4, 100.0  # at most
Rows = list[dict[str, Any]]


def times(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within each round; infinite if the other never answered."""
    ratios = [one / other for one, other in zip(ours, others, strict=True) if other]
    return median(ratios) if ratios else math.inf


def series(figures: Rows, mix: str, field: str) -> dict[str, dict[int, list[Any]]]:
    """By server and concurrency: ``field`` of every round."""
    found: dict[str, dict[int, list[Any]]] = {}
    for each in figures:
        if each["mix"] == mix:
            of_server = found.setdefault(each["server"], {})
            of_server.setdefault(each["concurrency"], []).append(each[field])
    return found


def mixes_of(figures: Rows) -> list[str]:
    """The mixes, in the order in which they were measured."""
    return list(dict.fromkeys(each["mix"] for each in figures))


def health_p99(rounds: Iterable[Sequence[float]]) -> float:
    """Of the latencies of all ``rounds``, in their unit."""
    return percentile(list(itertools.chain(*rounds)), 0.99)


@dataclass(frozen=True, slots=True)
class Target:
    """What was measured, and what is asked of it: so much at least, or at most."""

    what: str
    value: float
    least: float = -math.inf
    most: float = math.inf

    @property
    def met(self) -> bool:
        """Whether it is what is asked."""
        return self.least <= self.value <= self.most

    @property
    def asked(self) -> str:
        """In words."""
        return f"≥ {self.least:g}" if math.isfinite(self.least) else f"≤ {self.most:g}"


def targets(
    engine: dict[str, Any], http: dict[str, Any], parity: dict[str, Any]
) -> Iterator[Target]:
    """All that is asked of the engine; where there are several figures, the worst."""
    ways = parity["ways"].values()
    yield Target("labels other than the pipeline's", sum(w["labels_differ"] for w in ways), most=0)
    difference = max(each["largest_difference"] for each in ways)
    yield Target("difference to the pipeline, in probability", difference, most=DIFFERENCE)
    rates = engine["rates"]
    alone = times(rates["ours, one by one"], rates[PIPELINE])
    yield Target("in process, one by one, over the pipeline", alone, least=2)
    for name in (BOUND, ONNX_BOUND):
        stream = times(rates["ours, stream"], rates[name])
        yield Target(f"in process, a stream, over the {name}", stream, least=0.9)
    yield from http_targets(http["figures"])
    (ours,) = (each for each in http["starts"] if each["server"] == OURS)
    yield Target("seconds to ready", median(ours["ready_seconds"]), most=2)
    yield Target("MB resident under this load, at most", ours["peak_mb"], most=350)


def http_targets(figures: Rows) -> Iterator[Target]:
    """Of those, what is asked over HTTP."""
    mixes = mixes_of(figures)
    rates = {mix: series(figures, mix, "rate") for mix in mixes}

    def worst(other: str, callers: Iterable[int]) -> float:
        pairs = itertools.product(mixes, callers)
        return min(times(rates[mix][OURS][n], rates[mix][other][n]) for mix, n in pairs)

    kept = worst(IN_PROCESS, (n for n in CONCURRENCIES if n > 1))
    yield Target("of the rate in process, 8 to 64 callers", kept, least=0.85)
    yield Target(f"over {TUTORIAL}", worst(TUTORIAL, CONCURRENCIES), least=2.3)
    peers = set(rates[mixes[0]]) - {OURS, TUTORIAL, NULL, IN_PROCESS}
    for peer in sorted(peers):
        yield Target(f"over {peer}", worst(peer, CONCURRENCIES), least=1)
    errors = sum(each["errors"] for each in figures if each["server"] == OURS)
    yield Target("errors under load", errors, most=0)
    health = [series(figures, mix, "health_ms")[OURS] for mix in mixes]
    p99 = max(health_p99(rounds) for of_mix in health for rounds in of_mix.values())
    yield Target("/healthcheck under load, p99, ms", p99, most=HEALTH_MS)
