"""The figure of a leaderboard: quality against cost."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from sharedlabel.leaderboard.board.standings import Standing
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.report._panels import heading
from sharedlabel.report._theme import INK, MUTED, SERIES, STYLE, to_svg

LINEAR = 1000  # MACs up to which the axis of costs is linear, so that it has a place for 0


def against_cost(rows: Sequence[Standing], protocol: Protocol) -> str:
    """Draw the primary score with its interval against the MACs of a tuple, ranked entries filled, with the front.

    Args:
        rows: of the table, at least one.
        protocol: that they are of.

    Returns:
        SVG text.
    """
    with matplotlib.style.context(STYLE):
        figure = Figure(figsize=(8.0, 4.2), layout="constrained")
        panel = figure.subplots()
        heading(figure, "Mean RI against cost", f"{protocol.id}, n = {max(protocol.n)}, filled: verified")
        _cost_axis(panel, max(row.macs for row in rows))
        for row in rows:
            face = SERIES[0] if row.best is not None else "none"
            bars = [[row.ri - row.low], [row.high - row.ri]]
            panel.errorbar(row.macs, row.ri, yerr=bars, fmt="o", color=SERIES[0], mfc=face, ms=5, lw=0.8)
        front = sorted((row for row in rows if row.front), key=lambda row: row.macs)
        panel.plot([r.macs for r in front], [r.ri for r in front], color=INK, lw=1, drawstyle="steps-post", zorder=1)
        for place, row in enumerate(front):
            offset = (5, 6 + 11 * (place % 2))  # neighbours often cost alike
            name = row.entry.result.name
            panel.annotate(name, (row.macs, row.ri), offset, textcoords="offset points", fontsize=8, color=MUTED)
        panel.set(xlabel="MACs of the aggregator for one tuple (log scale from 1k)", ylabel="mean RI [95%]")
        label = f"Mean relative information against cost of {len(rows)} entries on {protocol.id}"
        return to_svg(figure, f"against-cost-{protocol.id}", label)


def _cost_axis(panel: Axes, largest: int) -> None:
    """Make an x axis for costs from 0 to the largest: linear up to 1,000, then logarithmic."""
    ticks = [0, LINEAR // 2, LINEAR]
    while ticks[-1] < largest:
        ticks.append(10 * ticks[-1])
    panel.set_xscale("symlog", linthresh=LINEAR)
    panel.set_xlim(-LINEAR / 20, max(1.6 * largest, 1.1 * LINEAR))
    panel.xaxis.set_major_locator(FixedLocator(ticks))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(round(value))))


def short(value: int) -> str:
    """Write a number of operations with a letter for its thousands.

    Args:
        value: not negative.

    >>> [short(value) for value in (0, 500, 1_000, 25_000, 1_000_000, 10_000_000_000)]
    ['0', '500', '1k', '25k', '1M', '10G']
    """
    for power, letter in ((12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if value >= 10**power:
            return f"{value / 10**power:g}{letter}"
    return str(value)
