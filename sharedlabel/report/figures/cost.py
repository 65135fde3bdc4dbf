"""RI against cost, with the Pareto front and the budget sweet spots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sharedlabel.config.names import EXACT
from sharedlabel.records import Summary
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.axes import Axis
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import INK, RING, Mark, Palette
from sharedlabel.report.figures._parts import subject, with_interval
from sharedlabel.report.views import View, method, winners

SECTION, ORDER, PER = "deploy", 10, "pruner"
HEADING = "Relative information against cost"
CAPTION = (
    "Each point is one method at one ratio and n, larger ones with more images. No cheaper point has more information "
    "than those on the line. Rings mark what each budget chose on validation, so they may lie a little off the line."
)
_SIZE = 0.8  # by which a point grows when n doubles


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw RI against cost, with the Pareto front and the budget sweet spots."""
    points = sorted((s for s in view.tests(pruner) if s.aggregator != EXACT), key=lambda s: s.cost_dense_passes)
    x = axes.log("dense passes per object", [s.cost_dense_passes for s in points])
    y = axes.stretched("RI, stretched towards 1", [s.ri for s in points])
    names = {method(s): palette[s.aggregator] for s in points}
    clouds = [
        Series(name, mark, tuple(_point(s, s.n) for s in points if method(s) == name), line="")
        for name, mark in sorted(names.items())
    ]
    best = Series("", Mark(INK), tuple(_point(s) for s in front(points)), line="steps", dots=False)
    guides, rings = _budgets(view, pruner, x, y)
    panel = Panel("", x, y, (best, *clouds, rings), guides, width=460, height=330)
    notes = ("line: Pareto front", "rings: chosen for a budget (dotted)")
    return Figure(f"{subject(view, pruner)}, test", (panel,), tuple(sorted(names.items())), notes)


def front(points: Sequence[Summary]) -> list[Summary]:
    """Keep the points that no cheaper or equally cheap point equals or beats in RI, by ascending cost."""
    kept: list[Summary] = []
    for point in sorted(points, key=lambda s: (s.cost_dense_passes, -s.ri)):
        if not kept or point.ri > kept[-1].ri:
            kept.append(point)
    return kept


def _point(s: Summary, n: int = 1) -> Point:
    said = f"{method(s)}, {s.ratio:g}x, n = {s.n}: {with_interval(s, 'ri')}, {s.cost_dense_passes:.3g} dense passes"
    return Point(s.cost_dense_passes, s.ri, said, size=_SIZE * (n.bit_length() - 1))


def _budgets(view: View, pruner: str, x: Axis, y: Axis) -> tuple[tuple[Guide, ...], Series]:
    own = dataclasses.replace(view, sweet_spots=tuple(s for s in view.sweet_spots if s.pruner == pruner))
    spots = winners(own, ("budget",))
    inside = [spot.value for spot in spots if spot.value is not None and x.low < spot.value < x.high]
    rings = tuple(
        Point(s.cost_dense_passes, s.ri, f"budget {s.value:g}: {method(s)}, {s.ratio:g}x, n = {s.n}", hollow=True)
        for s in spots
        if s.cost_dense_passes is not None and s.ri is not None
    )
    guides = tuple(Guide((value, y.low), (value, y.high)) for value in inside)
    return guides, Series("", Mark(RING), rings, line="")
