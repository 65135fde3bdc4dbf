"""How the plots look: colours, markers, axes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from sharedlabel.config.names import EXACT
from sharedlabel.report.charts.axes import stretched

_MAX_TICKS = 8

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
# Okabe-Ito without black and yellow, then three of Paul Tol's muted set: told apart with every common colour blindness.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", "#332288")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", (0, (4.0, 1.5)), (0, (1.0, 1.2)))
STYLE = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Mark:
    """How one method is drawn."""

    color: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]

    @property
    def look(self) -> dict[str, Any]:
        """Options of a line of this mark."""
        return {"linestyle": self.dash, "marker": self.marker, "color": self.color, "mec": PAPER, "mew": 0.4}


class Palette:
    """The mark of every name, the same in all figures.

    Args:
        names: aggregators (or pruners); the exact posterior is drawn in ink.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(set(names) - {EXACT})
        self._marks = {name: _mark(i) for i, name in enumerate(ordered)}
        self._marks[EXACT] = Mark(INK, "*", DASHES[1])

    def __getitem__(self, name: str) -> Mark:
        """Return the mark of a name."""
        return self._marks[name]


def _mark(i: int) -> Mark:
    size = len(SERIES)
    return Mark(SERIES[i % size], MARKERS[i % size], DASHES[i // size % len(DASHES)])


def ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Make x a log2 axis with the requested ratios as ticks, every second one if they are many."""
    axes.set_xscale("log", base=2)
    every = math.ceil(len(ratios) / _MAX_TICKS)
    axes.set_xticks(list(ratios), labels=[f"{r:g}" if i % every == 0 else "" for i, r in enumerate(ratios)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlim(ratios[0] / 1.2, ratios[-1] * 1.2)


def log_axis(axes: Axes) -> None:
    """Make x logarithmic with plain numbers at 1, 2 and 5 times the powers of ten; 1 and 3 if there are many."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high < 1000 * low else (1, 3)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_minor_locator(NullLocator())


def stretched_axis(axes: Axes, values: Iterable[float]) -> None:
    """Stretch y towards 1, where good methods differ: distances to 1 are logarithmic, ticks show plain values.

    Args:
        axes: panel; values above 0.999 are drawn at its edge.
        values: all that is drawn, each at most 1.
    """
    made = stretched("", values)
    floor = 1 - made.high
    axes.set_yscale(
        "function",
        functions=(lambda v: -np.log10(np.maximum(1 - np.asarray(v), floor)), lambda u: 1 - 10.0 ** -np.asarray(u)),
    )
    places, labels = zip(*made.ticks, strict=True)
    axes.yaxis.set_ticks(places, labels=labels)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylim(made.low, made.high)
