"""Tables and plots of what was measured.

    python -m bench.report docs/performance

Reads ``parity.json``, ``engine.json`` and ``http.json`` in the folder; writes ``results.md`` and
the plots.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import BOUND, CONCURRENCIES, IN_PROCESS, ONNX_BOUND, OURS, PIPELINE
from bench.plots import draw
from bench.targets import Rows, Target, health_p99, mixes_of, series, targets, times


def row(cells: Iterable[object]) -> str:
    """A line of a table."""
    return "| " + " | ".join(map(str, cells)) + " |"


def head(*names: str) -> list[str]:
    """The first two lines of a table."""
    return ["", row(names), row("---" for _ in names)]


def ratio(ours: Sequence[float], others: Sequence[float]) -> str:
    """What ``times`` says, to be shown; empty if the other never answered."""
    found = times(ours, others)
    return f"{found:.2f}" if math.isfinite(found) else ""


def target_table(found: Iterable[Target]) -> list[str]:
    """Every target, and whether it is met."""
    lines = ["## What is asked", *head("the worst figure of all mixes and callers", "", "", "met")]
    for each in found:
        met = "yes" if each.met else "**no**"
        lines.append(row((each.what, f"{each.value:.3g}", each.asked, met)))
    return [*lines, ""]


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


def http_tables(raw: dict[str, Any]) -> list[str]:
    """Over HTTP: a table of each mix, one of what HTTP keeps, one of starts."""
    lines = ["## Over HTTP"]
    figures: Rows = raw["figures"]
    mixes = mixes_of(figures)
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
                cells += [f"{middle(name):.0f}" for name in ("p50_ms", "p99_ms")]
                cells.append(f"{health_p99(fields['health_ms'][server][callers]):.0f}")
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
