"""The figure of a leaderboard: quality against cost."""

from __future__ import annotations

from collections.abc import Sequence

from sharedlabel.leaderboard.board.standings import Standing
from sharedlabel.leaderboard.protocol import Protocol
from sharedlabel.records.written import number
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.axes import Axis
from sharedlabel.report.charts.figure import Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import INK, Mark
from sharedlabel.report.charts.svg import panel_svg

LINEAR = 1000  # MACs up to which the axis of costs is linear, so that it has a place for 0


def against_cost(rows: Sequence[Standing], protocol: Protocol) -> str:
    """Draw the primary score with its interval against the MACs of a tuple, ranked entries filled, with the front.

    Args:
        rows: of the table, at least one.
        protocol: that they are of.

    Returns:
        An SVG element, whose colours are those of the page.
    """
    x = _cost_axis(max(row.macs for row in rows))
    y = axes.linear("mean RI", [end for row in rows for end in (row.ri, row.low, row.high)])
    front = sorted((row for row in rows if row.front), key=lambda row: row.macs)
    entries = Series("entries", Mark(0), tuple(map(_point, rows)), line="", spread="bars")
    best = Series("", Mark(INK), tuple(map(_point, front)), line="steps", dots=False)
    names = tuple(Guide((row.macs, row.ri), (row.macs, row.ri), row.entry.result.name) for row in front)
    title = f"{protocol.id}, n = {max(protocol.n)}; filled: verified"
    return panel_svg(Panel(title, x, y, (best, entries), names, width=760, height=360))


def _point(row: Standing) -> Point:
    said = (
        f"{row.entry.result.name}: mean RI {number(row.ri)} [{number(row.low)}, {number(row.high)}], {row.macs:,} MACs"
    )
    return Point(row.macs, row.ri, said, row.low, row.high, hollow=row.best is None)


def _cost_axis(largest: int) -> Axis:
    """Return an axis for costs from 0 to the largest: linear up to 1,000, then logarithmic."""
    ticks = [0, LINEAR // 2, LINEAR]
    while ticks[-1] < largest:
        ticks.append(10 * ticks[-1])
    high = max(1.6 * largest, 1.1 * LINEAR)
    named = tuple((float(tick), short(tick)) for tick in ticks if tick <= high)
    return Axis("MACs of the aggregator for one tuple", -LINEAR / 20, high, named, "signed", LINEAR)


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
