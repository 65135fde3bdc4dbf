"""Lines over compression ratios, which several figures draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes

from sharedlabel.config.names import DENSE, EXACT
from sharedlabel.records import Summary
from sharedlabel.report._panels import (
    label_ends,
    ratio_axis,
)
from sharedlabel.report._theme import Palette
from sharedlabel.report.views import View, method


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


def draw_lines(panel: Axes, view: View, pruner: str, n: int, metric: str, palette: Palette, *, band: bool) -> None:
    for _, points in curves(view, pruner, n, metric):
        mark = palette[points[0].aggregator]
        ratios, values = [p.ratio for p in points], [getattr(p, metric) for p in points]
        panel.plot(ratios, values, clip_on=False, **mark.look)
        if band:
            low, high = ([getattr(p, f"{metric}_{end}") for p in points] for end in ("low", "high"))
            panel.fill_between(ratios, low, high, color=mark.color, alpha=0.15, linewidth=0)
    ratio_axis(panel, view.ratios)


def label_last(
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
