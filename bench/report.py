"""Tables and plots of what was measured.

    python -m bench.report docs/performance

Reads ``parity.json``, ``engine.json`` and ``http.json`` in the folder; writes ``results.md`` and
the plots.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.engine import BOUND, ONNX_BOUND
from bench.http import CONCURRENCIES, IN_PROCESS
from bench.load import percentile
from bench.plots import draw

OURS, TUTORIAL, NULL = "ours", "FastAPI + pipeline", "null"
PIPELINE = "pipeline, one by one"
Rows = list[dict[str, Any]]


def row(cells: Iterable[object]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*names: str) -> list[str]:
    """The first two lines of a table."""
    return ["", row(names), row("---" for _ in names)]


def times(ours: Sequence[float], others: Sequence[float]) -> float:
    """The median of the ratios within each round; infinite if the other never answered."""
    ratios = [one / other for one, other in zip(ours, others, strict=True) if other]
    return median(ratios) if ratios else math.inf


def ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    """The same, to be shown."""
    found = times(ours, others)
    return f"{found:.2f}" if math.isfinite(found) else ""


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

    def row(self) -> str:
        """A line of the table."""
        asked = f"≥ {self.least:g}" if math.isfinite(self.least) else f"≤ {self.most:g}"
        return row((self.what, f"{self.value:.3g}", asked, "yes" if self.met else "**no**"))


def targets(
    engine: dict[str, Any], http: dict[str, Any], parity: dict[str, Any]
) -> Iterator[Target]:
    """All that is asked of the engine; where there are several figures, the worst."""
    ways = parity["ways"].values()
    yield Target("labels other than the pipeline's", sum(w["labels_differ"] for w in ways), most=0)
    difference = max(each["largest_difference"] for each in ways)
    yield Target("difference to the pipeline, in probability", difference, most=1e-4)
    rates = engine["rates"]
    alone = times(rates["ours, one by one"], rates[PIPELINE])
    yield Target("in process, one by one, over the pipeline", alone, least=2)
    for name in (BOUND, ONNX_BOUND):
        stream = times(rates["ours, stream"], rates[name])
        yield Target(f"in process, a stream, over the {name}", stream, least=0.9)
    yield from http_targets(http["figures"])
    (ours,) = (each for each in http["starts"] if each["server"] == OURS)
    yield Target("seconds to ready", median(ours["ready_seconds"]), most=2)
    yield Target("MB resident, at most", ours["peak_mb"], most=350)


def http_targets(figures: Rows) -> Iterator[Target]:
    """Of those, what is asked over HTTP."""
    mixes = list(dict.fromkeys(each["mix"] for each in figures))
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
    health = [series(figures, mix, "health_ms")[OURS] for mix in mixes]
    p99 = max(
        percentile(list(itertools.chain(*rounds)), 0.99)
        for of_mix in health
        for rounds in of_mix.values()
    )
    yield Target("/healthcheck under load, p99, ms", p99, most=100)


def target_table(found: Iterable[Target]) -> list[str]:
    """Every target, and whether it is met."""
    lines = ["## What is asked", *head("the worst figure of all mixes and callers", "", "", "met")]
    return [*lines, *(each.row() for each in found), ""]


def engine_tables(raw: dict[str, Any]) -> list[str]:
    """In process: rates, and what 8 bits change."""
    rates = raw["rates"]
    against = BOUND, ONNX_BOUND, PIPELINE
    lines = ["## In process", *head("what", "texts/s", *(f"over {name}" for name in against))]
    for name, values in rates.items():
        ratios = (ratio(values, rates[other]) for other in against)
        lines.append(row((name, f"{median(values):.0f}", *ratios)))
    int8 = raw["int8"]
    lines += ["", "## In 8 bits", *head("", "full precision", "8 bits")]
    accuracy = f"{int8['accuracy']:.2%}", f"{int8['int8_accuracy']:.2%}"
    lines.append(row((f"accuracy on {int8['texts']} texts", *accuracy)))
    for what in ("one by one", "stream", *(f"{n} callers" for n in (2, 8, 32, 64))):
        pair = rates[f"ours, {what}"], rates[f"8 bits, {what}"]
        eighth = f"{median(pair[1]):.0f} ({ratio(pair[1], pair[0])} times)"
        lines.append(row((f"{what}, texts/s", f"{median(pair[0]):.0f}", eighth)))
    lines += [
        "",
        f"{int8['labels_changed']} labels change; probabilities by {int8['mean_difference']:.4f}"
        f" in the mean and {int8['largest_difference']:.4f} at most; with the batch that a text is"
        f" in by {int8['difference_by_batch']:.1g} at most.",
        "",
    ]
    return lines


def series(figures: Rows, mix: str, field: str) -> dict[str, dict[int, list[float]]]:
    """By server and concurrency: ``field`` of every round."""
    found: dict[str, dict[int, list[float]]] = {}
    for each in figures:
        if each["mix"] == mix:
            of_server = found.setdefault(each["server"], {})
            of_server.setdefault(each["concurrency"], []).append(each[field])
    return found


def http_tables(raw: dict[str, Any]) -> list[str]:
    """Over HTTP: a table of each mix, one of what HTTP keeps, one of starts."""
    lines = ["## Over HTTP"]
    figures: Rows = raw["figures"]
    mixes = list(dict.fromkeys(each["mix"] for each in figures))
    for mix in mixes:
        lines += mix_table(figures, mix)
    lines += ["", "### of the in-process rate, over HTTP"]
    lines += head("mix", *(f"{callers} callers" for callers in CONCURRENCIES))
    for mix in mixes:
        rates = series(figures, mix, "rate")
        kept = (ratio(rates[OURS][n], rates[IN_PROCESS][n]) for n in CONCURRENCIES)
        lines.append(row((mix, *kept)))
    lines += ["", "### start and memory"]
    lines += head("server", "s to ready", "MB, idle", "after the load", "resident, at most")
    for each in raw["starts"]:
        ready = f"{median(each['ready_seconds']):.1f}"
        sizes = (f"{each[name]:.0f}" for name in ("idle_mb", "loaded_mb", "peak_mb"))
        lines.append(row((each["server"], ready, *sizes)))
    return [*lines, ""]


def mix_table(figures: Rows, mix: str) -> list[str]:
    """Rates and latencies, and how many times the rate of each server ours is."""
    fields = {name: series(figures, mix, name) for name in figures[0]}
    lines = [
        "",
        f"### {mix}",
        *head(
            "server", "callers", "texts/s", "ours / its", "p50 ms", "p99 ms", "health p99 ms",
            "load's CPU", "errors",
        ),
    ]  # fmt: skip
    for server, rates in fields["rate"].items():
        for callers, values in rates.items():
            middle: Callable[[str], float] = lambda name: median(  # noqa: E731
                fields[name][server][callers]  # noqa: B023
            )
            cells: list[object] = [server, callers, f"{median(values):.0f}"]
            cells.append(ratio(fields["rate"][OURS][callers], values))
            if server != IN_PROCESS:
                health = itertools.chain(*fields["health_ms"][server][callers])
                cells += [f"{middle(name):.0f}" for name in ("p50_ms", "p99_ms")]
                cells.append(f"{percentile(list(health), 0.99):.0f}")
                cells += [f"{middle('load_cpu'):.1%}", sum(fields["errors"][server][callers])]
            lines.append(row([*cells, *[""] * (9 - len(cells))]))
    return lines


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    parity, engine, http = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("parity", "engine", "http")
    )
    lines = [
        "# Results",
        "",
        "Written by `make bench`; medians of the rounds. What they mean is in",
    ]
    lines += ["[README.md](README.md).", "", *target_table(targets(engine, http, parity))]
    lines += [*engine_tables(engine), *http_tables(http)]
    (folder / "results.md").write_text("\n".join(lines), encoding="utf-8")
    draw(http, folder)


if __name__ == "__main__":
    main()
