"""Pieces that the figures share: small multiples, axes, direct labels."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sharedlabel.config.names import DENSE
from sharedlabel.report._theme import INK, Mark
from sharedlabel.report.views import View

MAX_PANELS = 5
_MAX_TICKS = 8
_LETTERS = 13  # of a heading, per inch
_STRETCHED_TICKS = (-8, -3, -1, 0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)


def panels(
    rows: int, columns: int, *, height: float, sharey: Literal["none", "all", "row"] = "all"
) -> tuple[Figure, list[list[Axes]]]:
    """Make a grid of panels; heights in inches."""
    width = {1: 6.5, 2: 9.0}.get(columns, 10.5)
    figure = Figure(figsize=(width, rows * height + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharey=sharey)
    return figure, [list(line) for line in axes]


def heading(figure: Figure, text: str, detail: str) -> None:
    """Put a title and the details below it at the left of a figure, on as many lines as they need."""
    lines = textwrap.fill(detail, round(_LETTERS * figure.get_figwidth()))
    figure.suptitle(f"{text}\n{lines}", x=0.01, ha="left", fontsize=9.5, color=INK, linespacing=1.5)


def subject(view: View, pruner: str | None = None, *, protocol: bool = True) -> str:
    """Phrase what a figure is about: data, backbone, pruner, protocol and seeds."""
    pruned = [] if pruner is None else ["dense only" if pruner == DENSE else f"pruned by {pruner}"]
    tuples = [f"{view.protocol} tuples"] if protocol else []
    return ", ".join([view.data, view.backbone, *pruned, *tuples, f"{view.seeds} seed{'s' * (view.seeds > 1)}"])


def panel_ns(ns: Sequence[int]) -> list[int]:
    """Choose at most five n for panels: all, else powers of two, else evenly spaced ones.

    >>> panel_ns(range(1, 17))
    [1, 2, 4, 8, 16]
    """
    chosen = list(ns)
    if len(chosen) > MAX_PANELS:
        powers = [n for n in chosen if n & (n - 1) == 0]
        chosen = powers if len(powers) > 1 else chosen
    if len(chosen) > MAX_PANELS:
        step = (len(chosen) - 1) / (MAX_PANELS - 1)
        chosen = [chosen[round(i * step)] for i in range(MAX_PANELS)]
    return chosen


def ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Make x a log2 axis with the requested ratios as ticks, every second one if they are many."""
    axes.set_xscale("log", base=2)
    every = math.ceil(len(ratios) / _MAX_TICKS)
    axes.set_xticks(list(ratios), labels=[f"{r:g}" if i % every == 0 else "" for i, r in enumerate(ratios)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(ratios[0] / 1.2, ratios[-1] * 1.2)


def log_axis(axes: Axes, which: str) -> None:
    """Make an axis logarithmic with plain numbers at 1, 2 and 5 times the powers of ten; 1 and 3 if there are many."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 1000 * low else (1, 3)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def stretched_axis(axes: Axes, values: Iterable[float], which: Literal["x", "y"] = "y") -> None:
    """Stretch an axis towards 1, where good methods differ: distances to 1 are logarithmic, ticks show plain values.

    Args:
        axes: panel; values above 0.999 are drawn at its edge.
        values: all that is drawn, each at most 1.
        which: the axis.
    """
    gaps = [1 - value for value in values]
    floor = max(min((gap for gap in gaps if gap > 0), default=0.1) / 1.3, 1e-3)
    (axes.set_xscale if which == "x" else axes.set_yscale)(
        "function",
        functions=(lambda v: -np.log10(np.maximum(1 - np.asarray(v), floor)), lambda u: 1 - 10.0 ** -np.asarray(u)),
    )
    low, high = 1 - max(gaps) * 1.1, 1 - floor
    apart = 0.06 * math.log10((1 - low) / floor)
    ticks: list[float] = []
    for tick in (tick for tick in reversed(_STRETCHED_TICKS) if low <= tick <= high):
        if not ticks or math.log10((1 - tick) / (1 - ticks[-1])) >= apart:
            ticks.append(tick)
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())
    (axes.set_xlim if which == "x" else axes.set_ylim)(low, high)


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, Mark]]) -> None:
    """Write names at the right of a panel, spread so that none overlap, each tied to the end of its line.

    Args:
        axes: panel whose limits are final.
        ends: name, x and y (in data units) of the last point of a line, and its mark.
    """
    size = axes.get_figure(root=True).get_size_inches()  # type: ignore[union-attr]
    rows = axes.get_gridspec().nrows  # type: ignore[union-attr]
    gap = 0.155 / (size[1] / rows - 0.9)
    to_axes = axes.transAxes.inverted()
    tips = [(*to_axes.transform(axes.transData.transform((x, y))), name, mark) for name, x, y, mark in ends]
    tips.sort(key=lambda tip: tip[1])
    for (x, y, name, mark), height in zip(tips, spread([float(tip[1]) for tip in tips], gap), strict=True):
        placed = {"color": mark.color, "transform": axes.transAxes, "clip_on": False}
        axes.plot([x, 1.06], [y, height], linewidth=0.8, **placed)
        axes.plot(1.06, height, mark.marker, **placed)
        axes.text(1.1, height, name, transform=axes.transAxes, va="center")


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions in [0, 1] apart to at least a gap, as little as possible, and inside while they fit.

    >>> spread([0.5, 0.5, 1.0], 0.2)
    [0.4, 0.6, 1.0]
    """
    clusters: list[tuple[float, int]] = []
    for height in heights:
        centre, size = _inside(height, 1, gap), 1
        while clusters and centre - clusters[-1][0] < gap * (size + clusters[-1][1]) / 2:
            below, count = clusters.pop()
            centre = (centre * size + below * count) / (size + count)
            size += count
            centre = _inside(centre, size, gap)
        clusters.append((centre, size))
    return [centre + gap * (i - (size - 1) / 2) for centre, size in clusters for i in range(size)]


def _inside(centre: float, size: int, gap: float) -> float:
    half = min(gap * (size - 1) / 2, 0.5)
    return min(max(centre, half), 1 - half)
