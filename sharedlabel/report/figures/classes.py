"""N-accuracy of every class."""

from __future__ import annotations

from sharedlabel.config.names import network_name
from sharedlabel.records.written import percent
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures._parts import subject
from sharedlabel.report.views import View, method

SECTION, ORDER, PER = "wrong", 64, "view"
HEADING = "Right answers by class"
CAPTION = (
    "The share of the tuples of each class that get its label, the hardest classes first, for the headline's method."
)
_MOST = 20  # classes
_LINE, _AXES = 15, 60  # heights


def draw(view: View, palette: Palette) -> Figure | None:
    """Draw the n-accuracy of the hardest classes; None where no answers are stored."""
    if not view.confusions:
        return None
    totals: dict[str, int] = {}
    right: dict[str, int] = {}
    for c in view.confusions:
        totals[c.label] = totals.get(c.label, 0) + c.tuples
        right[c.label] = right.get(c.label, 0) + c.tuples * (c.label == c.predicted)
    order = sorted(totals, key=lambda name: (right[name] / totals[name], name))[:_MOST]
    points = tuple(
        Point(right[name] / totals[name], -place, f"{name}: {percent(right[name] / totals[name])} right")
        for place, name in enumerate(order)
    )
    some = view.confusions[0]
    least = points[0].x
    x = axes.linear("n-accuracy", [least, 1.0]) if least < 1 else axes.share("n-accuracy")
    series = Series(method(some), palette[some.aggregator], points, line="")
    panel = Panel("", x, axes.names(order), (series,), width=380, height=_AXES + _LINE * len(order))
    left_out = f"; {len(totals) - _MOST} easier classes are left out" if len(totals) > _MOST else ""
    where = f"{method(some)} on {network_name(some.pruner, some.ratio)}, n = {some.n}"
    return Figure(f"{where}; {subject(view)}, test{left_out}", (panel,))
