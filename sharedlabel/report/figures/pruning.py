"""Accuracy of single images against sparsity."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sharedlabel.config.names import DENSE
from sharedlabel.records import Row
from sharedlabel.report._panels import (
    heading,
    label_ends,
    panels,
    subject,
)
from sharedlabel.report._theme import Mark, Palette
from sharedlabel.report.views import View, usual

ORDER, PER = 70, "network"
HEADING = "Pruning curves"
CAPTION = "Accuracy of single images as weights are removed, before and after retraining."


def draw(view: View, palette: Palette) -> Figure:
    """Draw single-image validation accuracy before and after retraining against sparsity, a line per pruner."""
    figure, axes = panels(1, 2, height=3.0)
    heading(figure, "Pruning curves", subject(view, protocol=False) + ", validation, bands: range over seeds")
    sides = (("validation_accuracy_before_retrain", "before retraining"), ("validation_accuracy", "after retraining"))
    for panel, (column, label) in zip(axes[0], sides, strict=True):
        panel.set_title(label)
        panel.set_xlabel("share of prunable weights removed")
        ends = []
        for pruner in view.pruners:
            mark = palette[pruner]
            points = _accuracies(view.rows, pruner, column)
            _curve(panel, points, mark)
            ends.append((pruner, points[-1][0], statistics.fmean(points[-1][1]), mark))
        if panel is axes[0][-1]:
            label_ends(panel, ends)
    axes[0][0].set_ylabel("accuracy of single images")
    return figure


def _curve(panel: Axes, points: Sequence[tuple[float, list[float]]], mark: Mark) -> None:
    x = [sparsity for sparsity, _ in points]
    panel.plot(
        x, [statistics.fmean(values) for _, values in points], marker=mark.marker, ls=mark.dash, color=mark.color
    )
    low, high = ([pick(values) for _, values in points] for pick in (min, max))
    panel.fill_between(x, low, high, color=mark.color, alpha=0.15, linewidth=0)


def _accuracies(rows: Sequence[Row], pruner: str, column: str) -> list[tuple[float, list[float]]]:
    groups: dict[float, dict[int, Row]] = {}
    for row in usual(rows):
        if row.pruner in {pruner, DENSE}:
            groups.setdefault(row.ratio, {})[row.seed] = row
    points = []
    for ratio in sorted(groups):
        group = list(groups[ratio].values())
        points.append((statistics.fmean(r.sparsity for r in group), [float(getattr(r, column)) for r in group]))
    return points
