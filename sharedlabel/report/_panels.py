"""Pieces that the figures share: small multiples, axes, direct labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator
from matplotlib.transforms import blended_transform_factory

from sharedlabel.report._theme import INK, MUTED, Mark
from sharedlabel.report.views import DENSE, View

MAX_PANELS = 5
_MAX_TICKS = 8


def panels(rows: int, columns: int, *, height: float, sharey: bool | str = True) -> tuple[Figure, list[list[Axes]]]:
    """Make a grid of panels; heights in inches."""
    width = {1: 6.5, 2: 9.0}.get(columns, 10.5)
    figure = Figure(figsize=(width, rows * height + 0.9), layout="constrained")
    sharing = {True: "all", False: "none"}.get(sharey, sharey) if isinstance(sharey, bool) else sharey
    axes = figure.subplots(rows, columns, squeeze=False, sharex=False, sharey=sharing)  # type: ignore[arg-type]
    return figure, [list(line) for line in axes]


def heading(figure: Figure, text: str, detail: str) -> None:
    """Put a title and a smaller second line at the left of a figure."""
    figure.suptitle(f"{text}\n{detail}", x=0.01, ha="left", fontsize=9.5, color=INK, linespacing=1.5)


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
    """Make an axis logarithmic with plain numbers at 1, 2 and 5 times the powers of ten."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())


def label_ends(axes: Axes, ends: Sequence[tuple[str, float, float, Mark]]) -> None:
    """Write names at the right of a panel, spread so that none overlap, each tied to the end of its line.

    Args:
        axes: panel whose limits are final.
        ends: name, x and y (in data units) of the last point of a line, and its mark.
    """
    figure_height = axes.figure.get_figheight()  # type: ignore[union-attr]
    rows = len({round(other.get_subplotspec().rowspan.start) for other in axes.figure.axes})  # type: ignore[union-attr]
    gap = 0.16 / max((figure_height - 0.9) / rows - 0.5, 0.5)
    to_axes = axes.transAxes.inverted()
    ordered = sorted(ends, key=lambda end: end[2])
    heights = spread([float(to_axes.transform(axes.transData.transform((x, y)))[1]) for _, x, y, _ in ordered], gap)
    where = blended_transform_factory(axes.transAxes, axes.transAxes)
    for (name, x, y, mark), height in zip(ordered, heights, strict=True):
        line = {"arrowstyle": "-", "color": mark.color, "linewidth": 0.8, "shrinkA": 1, "shrinkB": 2}
        axes.annotate(
            name, (x, y), (1.07, height), textcoords=where, va="center", arrowprops=line, annotation_clip=False
        )
        axes.plot(1.05, height, mark.marker, color=mark.color, transform=where, clip_on=False)


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move ascending positions apart to at least a gap, as little as possible, centred where they crowd.

    >>> spread([0.0, 0.0, 1.0], 0.2)
    [-0.1, 0.1, 1.0]
    """
    clusters: list[tuple[float, int]] = []
    for height in heights:
        centre, size = height, 1
        while clusters and centre - clusters[-1][0] < gap * (size + clusters[-1][1]) / 2:
            below, count = clusters.pop()
            centre = (centre * size + below * count) / (size + count)
            size += count
        clusters.append((centre, size))
    return [centre + gap * (i - (size - 1) / 2) for centre, size in clusters for i in range(size)]
