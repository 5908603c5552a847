"""Plots of the figures over HTTP, as SVG: rates, latencies, starts and memory."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench import NULL

STYLES = {
    "in process": "k:",
    "ours": "C0o-",
    "FastAPI + pipeline": "C1s--",
    "LitServe + pipeline": "C2^--",
    "LitServe + our session": "C2^-",
    "BentoML + pipeline": "C3v--",
    "BentoML + our session": "C3v-",
}


def draw(raw: dict[str, Any], folder: Path) -> None:
    """Write ``rates.svg``, ``latencies.svg`` and ``starts.svg``."""
    mpl.use("svg")
    # The same figures make the same files.
    mpl.rcParams.update({"svg.hashsalt": "bench", "svg.fonttype": "none", "font.size": 9})
    shown = [each for each in raw["figures"] if each["server"] != NULL]
    _save(_lines(shown, "rate", "texts/s"), folder / "rates.svg")
    over_http = [each for each in shown if each["p99_ms"]]
    _save(_lines(over_http, "p99_ms", "p99 ms", log=True), folder / "latencies.svg")
    starts = [each for each in raw["starts"] if each["server"] != NULL]
    _save(_bars(starts), folder / "starts.svg")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None}, bbox_inches="tight")
    plt.close(figure)


def _lines(figures: list[dict[str, Any]], field: str, label: str, *, log: bool = False) -> Figure:
    mixes = list(dict.fromkeys(each["mix"] for each in figures))
    figure, axes = plt.subplots(1, len(mixes), figsize=(5 * len(mixes), 3.5), squeeze=False)
    servers = {each["server"] for each in figures}
    names = [name for name in STYLES if name in servers]
    for axis, mix in zip(axes[0], mixes, strict=True):
        for name in names:
            mine = [e for e in figures if (e["server"], e["mix"]) == (name, mix)]
            _line(axis, mine, field, STYLES[name])
        axis.set(title=mix, xlabel="concurrent callers", ylabel=label, xscale="log")
        ticks = sorted({each["concurrency"] for each in figures})
        axis.set_xticks(ticks, map(str, ticks))
        axis.minorticks_off()
        axis.set_yscale("log") if log else axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[0][-1].legend(names, bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    return figure


def _line(axis: Axes, figures: list[dict[str, Any]], field: str, style: str) -> None:
    callers = sorted({each["concurrency"] for each in figures})
    rounds = [[e[field] for e in figures if e["concurrency"] == number] for number in callers]
    axis.plot(callers, [median(each) for each in rounds], style, markersize=4)


def _bars(starts: list[dict[str, Any]]) -> Figure:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 2.6), sharey=True)
    names = [each["server"] for each in starts][::-1]
    left.barh(names, [median(each["ready_seconds"]) for each in starts][::-1])
    left.set(title="seconds to ready")
    right.barh(names, [each["loaded_mb"] for each in starts][::-1], label="after the load")
    right.barh(names, [each["idle_mb"] for each in starts][::-1], label="idle")
    right.set(title="MB (proportional set size)")
    right.legend(bbox_to_anchor=(1.02, 1), loc="upper left", frameon=False)
    return figure
