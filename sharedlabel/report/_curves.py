"""Figures with the ratio or the sparsity on the x axis."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharedlabel.names import DENSE, EXACT
from sharedlabel.records import Row, Summary, SweetSpot
from sharedlabel.report._panels import (
    heading,
    label_ends,
    log_axis,
    panel_ns,
    panels,
    ratio_axis,
    stretched_axis,
    subject,
)
from sharedlabel.report._theme import INK, Mark, Palette
from sharedlabel.report.sentences import title
from sharedlabel.report.views import View, method, usual


def curves(view: View, pruner: str, n: int, metric: str) -> Iterator[tuple[str, list[Summary]]]:
    """Yield every method with its test summaries at one n, by ascending ratio, the dense network first.

    The exact posterior uses no network: it has no efficiency, and its one value holds at every ratio.
    """
    lines: dict[str, dict[float, Summary]] = {}
    for summary in sorted(view.tests(pruner, n), key=lambda s: s.pruner != DENSE):
        lines.setdefault(method(summary), {})[summary.ratio] = summary
    for name in sorted(lines):
        points = [lines[name][ratio] for ratio in sorted(lines[name])]
        if points[0].aggregator != EXACT:
            yield name, points
        elif metric != "efficiency":
            yield name, [points[0], dataclasses.replace(points[0], ratio=view.ratios[-1])]


def against_ratio(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw n-accuracy and RI against the ratio: a row each, a panel per n, a line per aggregator."""
    ns = panel_ns(view.ns)
    figure, axes = panels(2, len(ns), height=2.2, sharey="row")
    heading(figure, "n-accuracy and RI against compression", subject(view, pruner) + ", test, bands: 95% intervals")
    metrics = (("n_accuracy", "n-accuracy, stretched towards 1"), ("ri", "RI, stretched towards 1"))
    for line, (metric, label) in zip(axes, metrics, strict=True):
        line[0].set_ylabel(label)
        drawn = [s for n in ns for s in view.tests(pruner, n)]
        stretched_axis(line[0], [getattr(s, metric + end) for s in drawn for end in ("", "_low", "_high")])
        for panel, n in zip(line, ns, strict=True):
            _lines(panel, view, pruner, n, metric, palette, band=True)
            panel.set_title(f"n = {n}")
    figure.supxlabel("compression ratio, dense / compressed parameters (log scale)", fontsize=8.5)
    _label_last(axes, view, pruner, ns[-1], ("n_accuracy", "ri"), palette)
    return figure


def efficiency(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw efficiency against the ratio, a panel per n, with the sweet spots of two rules marked."""
    ns = panel_ns(view.ns)
    figure, axes = panels(1, len(ns), height=2.9)
    heading(figure, "Efficiency against compression: a curve to look at, not a rule", subject(view, pruner) + ", test")
    positive = all(s.efficiency > 0 for s in view.tests(pruner) if s.aggregator != EXACT)
    marked = [
        s for s in view.sweet_spots if s.pruner == pruner and (s.rule == "retain" or (s.rule, s.value) == ("budget", 1))
    ]
    for panel, n in zip(axes[0], ns, strict=True):
        _lines(panel, view, pruner, n, "efficiency", palette, band=False)
        panel.set_title(f"n = {n}")
        _rings(panel, view, pruner, [s for s in marked if s.n == n])
        if positive:
            log_axis(panel, "y")
    axes[0][0].set_ylabel("efficiency (bits per dense pass" + (", log scale)" if positive else ")"))
    figure.supxlabel("compression ratio, dense / compressed parameters (log scale)", fontsize=8.5)
    _label_last(axes, view, pruner, ns[-1], ("efficiency",), palette)
    _ring_legend(figure, marked)
    return figure


_RINGS = {"retain": ("o", 9.0), "budget": ("s", 12.0)}


def _rings(panel: Axes, view: View, pruner: str, spots: Sequence[SweetSpot]) -> None:
    heights = {(method(s), s.ratio, s.n): s.efficiency for s in view.tests(pruner)}
    for spot in spots:
        height = heights.get((method(spot), spot.ratio or 0.0, spot.n or 0))
        if height is not None and spot.ratio is not None:
            marker, size = _RINGS[spot.rule]
            panel.plot(spot.ratio, height, marker, markersize=size, mfc="none", mec=INK, mew=0.9, zorder=4)


def _ring_legend(figure: Figure, spots: Sequence[SweetSpot]) -> None:
    names: dict[str, str] = {spot.rule: title(spot).split(", n =")[0] for spot in spots}
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker=_RINGS[rule][0],
            ms=_RINGS[rule][1] - 2,
            mfc="none",
            mec=INK,
            label=f"sweet spot: {name}",
        )
        for rule, name in sorted(names.items())
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=8.5)


def _lines(panel: Axes, view: View, pruner: str, n: int, metric: str, palette: Palette, *, band: bool) -> None:
    for _, points in curves(view, pruner, n, metric):
        mark = palette[points[0].aggregator]
        ratios, values = [p.ratio for p in points], [getattr(p, metric) for p in points]
        panel.plot(ratios, values, clip_on=False, **mark.look)
        if band:
            low, high = ([getattr(p, f"{metric}_{end}") for p in points] for end in ("low", "high"))
            panel.fill_between(ratios, low, high, color=mark.color, alpha=0.15, linewidth=0)
    ratio_axis(panel, view.ratios)


def _label_last(
    axes: Sequence[Sequence[Axes]],
    view: View,
    pruner: str,
    n: int,
    metrics: Sequence[str],
    palette: Palette,
) -> None:
    for line, metric in zip(axes, metrics, strict=True):
        ends = [
            (name, points[-1].ratio, float(getattr(points[-1], metric)), palette[points[-1].aggregator])
            for name, points in curves(view, pruner, n, metric)
        ]
        label_ends(line[-1], ends)


def pruning(view: View, palette: Palette) -> Figure:
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
    found = []
    for ratio in sorted(groups):
        group = list(groups[ratio].values())
        found.append((statistics.fmean(r.sparsity for r in group), [float(getattr(r, column)) for r in group]))
    return found
