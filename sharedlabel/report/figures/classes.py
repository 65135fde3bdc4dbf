"""N-accuracy of every class."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

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
    "The share of the tuples of each class that get its label, the hardest classes first, for the headline's method at "
    "its n or, where nothing is wrong there, at the largest n below with a mistake."
)
_MOST = 20  # classes: the hardest, and as many of the easiest
_LINE, _AXES = 15, 60  # heights


def draw(view: View, palette: Palette) -> Figure | None:
    """Draw the n-accuracy of the hardest and the easiest classes; None where no answers are stored."""
    if not view.confusions:
        return None
    totals: dict[str, int] = {}
    right: dict[str, int] = {}
    for c in view.confusions:
        totals[c.label] = totals.get(c.label, 0) + c.tuples
        right[c.label] = right.get(c.label, 0) + c.tuples * (c.label == c.predicted)
    every = sorted(totals, key=lambda name: (right[name] / totals[name], name))
    order = every if len(every) <= _MOST else every[: _MOST // 2] + every[-_MOST // 2 :]
    points = tuple(
        Point(right[name] / totals[name], -place, f"{name}: {percent(right[name] / totals[name])} right")
        for place, name in enumerate(order)
    )
    some = view.confusions[0]
    least = points[0].x
    x = axes.linear("n-accuracy", [least, 1.0]) if least < 1 else axes.share("n-accuracy")
    said = _spread([right[name] / totals[name] for name in every])
    series = Series(method(some), palette[some.aggregator], points, line="")
    panel = Panel("", x, axes.names(order), (series,), width=380, height=_AXES + _LINE * len(order))
    where = f"{method(some)} on {network_name(some.pruner, some.ratio)}, n = {some.n}"
    return Figure(f"{where}; {subject(view)}, test{said}", (panel,))


def _spread(shares: Sequence[float]) -> str:
    """Say how all classes fare where some are left out."""
    if len(shares) <= _MOST:
        return ""
    low, middle, high = (percent(value) for value in statistics.quantiles(shares, n=4, method="inclusive"))
    return (
        f"; the {_MOST // 2} hardest and the {_MOST // 2} easiest of {len(shares)} classes, of which a quarter is at "
        f"most {low} right, half at most {middle}, a quarter at least {high}"
    )
