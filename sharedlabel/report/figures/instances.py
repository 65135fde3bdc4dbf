"""Relative information against the number of instances, a line per ratio."""

from __future__ import annotations

from sharedlabel.config.names import EXACT
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures import _parts
from sharedlabel.report.views import View, method

SECTION, ORDER, PER, ASIDE = "compress", 24, "pruner", True
HEADING = "Relative information against the number of instances"
CAPTION = (
    "What further images of the same object give, by compression ratio, for the methods with the highest relative "
    "information at the largest n on validation."
)
_METHODS = 3  # panels, a method each


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw RI against n, a panel for each of the best methods, a line per ratio; None with single instances alone."""
    del palette  # its names are methods; here one method is drawn at several ratios
    best = _best(view, pruner)
    if len(view.ns) < 2 or not best:
        return None
    ratios, missing = _parts.ratios(view, view.ratios)
    marks = Palette(f"{ratio:g}x" for ratio in ratios)
    panels = []
    for name in best:
        shown = sorted((s for s in view.tests(pruner) if method(s) == name and s.ratio in ratios), key=lambda s: s.n)
        series = [
            Series(
                f"{ratio:g}x",
                marks[f"{ratio:g}x"],
                tuple(_parts.scored(s, "ri", s.n, f"{ratio:g}x, n = {s.n}, {name}") for s in shown if s.ratio == ratio),
                spread="band",
            )
            for ratio in ratios
        ]
        y = _parts.stretched(_parts.LABELS["ri"], shown, "ri")
        x = axes.powers("images per object, n", [float(n) for n in view.ns])
        panels.append(Panel(name, x, y, tuple(one for one in series if one.points)))
    legend = tuple((f"{ratio:g}x", marks[f"{ratio:g}x"]) for ratio in ratios)
    return Figure(f"{_parts.subject(view, pruner)}, {_parts.BANDS}{missing}", tuple(panels), legend, _parts.cut(panels))


def _best(view: View, pruner: str) -> list[str]:
    """Name the methods with the highest mean RI over ratios at the largest n, on validation."""
    values: dict[str, list[float]] = {}
    most = view.ns[-1]
    for s in view.summaries:
        if (s.split, s.n) == ("validation", most) and s.pruner == pruner and s.aggregator != EXACT:
            values.setdefault(method(s), []).append(s.ri)
    return sorted(values, key=lambda name: -sum(values[name]) / len(values[name]))[:_METHODS]
