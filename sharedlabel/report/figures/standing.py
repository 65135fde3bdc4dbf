"""Mean scores of the aggregators over all networks, with their ranks as intervals."""

from __future__ import annotations

from collections.abc import Sequence

from sharedlabel.records import Rank
from sharedlabel.records.written import number
from sharedlabel.report import standings
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures._parts import cut, panel_ns, subject
from sharedlabel.report.views import View, method

SECTION, ORDER, PER = "method", 34, "training"
HEADING = "Ranks of the aggregators"
CAPTION = (
    "Means over all compressed networks, the scores of each tuple averaged first, so that differences stay paired. "
    "Before each name its rank, as an interval: from 1 + methods shown to be better to all methods less those shown to "
    "be worse, adjusted for all pairs, n and metrics."
)
_LINE = 17  # height of a name
_AXES = 62  # of title and axis


def draw(view: View, training: str, palette: Palette) -> Figure | None:
    """Draw the standing of the aggregators over all networks, a panel per n; None if they were not compared."""
    orders = {n: standings.standing(view, training, n) for n in panel_ns(standings.sizes(view, training))}
    if not orders:
        return None
    some = next(iter(orders.values()))[0]
    networks = f"{some.networks} network{'s' * (some.networks > 1)}"
    about = f"{subject(view)}, mean over {networks}, test, bars: 95% intervals"
    panels = tuple(_panel(n, order, palette) for n, order in orders.items())
    return Figure(about, panels, notes=cut(panels))


def _panel(n: int, order: Sequence[Rank], palette: Palette) -> Panel:
    series = tuple(
        Series(method(rank), palette[rank.aggregator], (_point(rank, place),), line="", spread="sideways")
        for place, rank in enumerate(order)
    )
    ends = [end for r in order for end in (r.low, r.high)]
    x = axes.stretched("mean RI, stretched towards 1", [r.mean for r in order], ends)
    y = axes.names([f"{standings.span(rank)}  {method(rank)}" for rank in order])
    return Panel(f"n = {n}", x, y, series, width=340, height=_AXES + _LINE * len(order))


def _point(rank: Rank, place: int) -> Point:
    interval = f"[{number(rank.low)}, {number(rank.high)}]"
    alike = ", ".join(sorted(rank.alike_names()))
    others = f"not shown to differ from {alike}" if alike else "shown to differ from all others"
    said = f"{method(rank)}: rank {standings.span(rank)}, mean RI {number(rank.mean)} {interval}; {others}"
    return Point(rank.mean, -place, said, rank.low, rank.high)
