"""Accuracy of single images against sparsity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sharedlabel.config.names import DENSE
from sharedlabel.records import Row
from sharedlabel.records.written import percent
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures._parts import subject
from sharedlabel.report.views import View, usual

SECTION, ORDER, PER, ASIDE = "compress", 26, "network", True
HEADING = "Pruning curves"
CAPTION = "Accuracy of single images as weights are removed, before and after retraining."
_SIDES = (("validation_accuracy_before_retrain", "before retraining"), ("validation_accuracy", "after retraining"))


def draw(view: View, palette: Palette) -> Figure:
    """Draw single-image validation accuracy before and after retraining against sparsity, a line per pruner."""
    panels = []
    for column, title in _SIDES:
        series = [
            Series(pruner, palette[pruner], tuple(_points(view.rows, pruner, column)), spread="band")
            for pruner in view.pruners
        ]
        ends = [end for one in series for p in one.points for end in (p.low, p.high) if end is not None]
        x, y = axes.share("share of prunable weights removed"), axes.linear("accuracy of single images", ends)
        panels.append(Panel(title, x, y, tuple(series), width=340, height=220))
    legend = tuple((pruner, palette[pruner]) for pruner in view.pruners)
    about = f"{subject(view, protocol=False)}, validation, bands: range over seeds"
    return Figure(about, tuple(panels), legend)


def _points(rows: Sequence[Row], pruner: str, column: str) -> list[Point]:
    groups: dict[float, dict[int, Row]] = {}
    for row in usual(rows):
        if row.pruner in {pruner, DENSE}:
            groups.setdefault(row.ratio, {})[row.seed] = row
    points = []
    for ratio in sorted(groups):
        values = [float(getattr(row, column)) for row in groups[ratio].values()]
        middle = statistics.fmean(values)
        sparsity = statistics.fmean(row.sparsity for row in groups[ratio].values())
        said = f"{pruner}, {ratio:g}x: {percent(middle)} right"
        points.append(Point(sparsity, middle, said, min(values), max(values)))
    return points
