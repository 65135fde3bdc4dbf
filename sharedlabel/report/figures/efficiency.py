"""Efficiency against the compression ratio."""

from __future__ import annotations

from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark, Palette
from sharedlabel.report.figures._parts import LABELS, RATIO, curves, panel_ns, subject
from sharedlabel.report.views import View

SECTION, ORDER, PER, ASIDE = "cost", 50, "pruner", True
HEADING = "Efficiency against compression"
CAPTION = "It rewards ever smaller networks, so its maximum is a curve to look at and no recommendation."


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw efficiency against the ratio, a panel per n."""
    panels, legend = [], dict[str, Mark]()
    for n in panel_ns(view.ns):
        lines = dict(curves(view, pruner, n, "efficiency"))
        legend |= {name: palette[points[0].aggregator] for name, points in lines.items()}
        values = [p.efficiency for points in lines.values() for p in points]
        series = [
            Series(
                name,
                legend[name],
                tuple(
                    Point(p.ratio, p.efficiency, f"{name}, {p.ratio:g}x, n = {n}: {p.efficiency:.3g} bits per pass")
                    for p in points
                ),
            )
            for name, points in lines.items()
        ]
        y = (axes.log if min(values) > 0 else axes.linear)(LABELS["efficiency"], values)
        panels.append(Panel(f"n = {n}", axes.powers(RATIO, view.ratios, "x"), y, tuple(series)))
    return Figure(f"{subject(view, pruner)}, test", tuple(panels), tuple(legend.items()))
