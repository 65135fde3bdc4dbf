"""Relative information against the number of instances, a line per ratio."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sharedlabel.config.names import EXACT
from sharedlabel.records import Summary
from sharedlabel.report._panels import MAX_PANELS, heading, label_ends, panels, ratio_axis, stretched_axis, subject
from sharedlabel.report._theme import Palette
from sharedlabel.report.views import View, method

ORDER, PER = 25, "pruner"
HEADING = "Relative information against the number of instances"
CAPTION = (
    "What further images of the same object give, by compression ratio, for the methods with the highest relative "
    "information at the largest n on validation. Bands are 95% intervals over images and seeds; the y axis is "
    "stretched towards 1."
)
_METHODS = 3  # panels, a method each


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw RI against n, a panel for each of the best methods, a line per ratio; None with single instances alone."""
    del palette  # its names are methods; here one method is drawn at several ratios
    best = _best(view, pruner)
    if len(view.ns) < 2 or not best:
        return None
    marks = Palette(f"{ratio:g}x" for ratio in _some(view.ratios))
    figure, (line,) = panels(1, len(best), height=3.2)
    heading(figure, "RI against the number of instances", subject(view, pruner) + ", test, bands: 95% intervals")
    shown = [s for s in view.tests(pruner) if method(s) in best]
    stretched_axis(line[0], [value for s in shown for value in (s.ri, s.ri_low, s.ri_high)])
    line[0].set_ylabel("RI, stretched towards 1")
    for panel, name in zip(line, best, strict=True):
        _panel(panel, [s for s in shown if method(s) == name], view, marks)
        panel.set_title(name)
        panel.set_xlabel("instances per tuple, n (log scale)")
    return figure


def _best(view: View, pruner: str) -> list[str]:
    """Name the methods with the highest mean RI over ratios at the largest n, on validation."""
    values: dict[str, list[float]] = {}
    for s in view.summaries:
        if (s.split, s.n) == ("validation", view.ns[-1]) and s.pruner == pruner and s.aggregator != EXACT:
            values.setdefault(method(s), []).append(s.ri)
    return sorted(values, key=lambda name: -sum(values[name]) / len(values[name]))[:_METHODS]


def _some(ratios: Sequence[float]) -> list[float]:
    """Keep at most five ratios, the smallest and the largest among them."""
    if len(ratios) <= MAX_PANELS:
        return list(ratios)
    return [ratios[round(i * (len(ratios) - 1) / (MAX_PANELS - 1))] for i in range(MAX_PANELS)]


def _panel(panel: Axes, summaries: Sequence[Summary], view: View, marks: Palette) -> None:
    ends = []
    for ratio in _some(view.ratios):
        points = sorted((s for s in summaries if s.ratio == ratio), key=lambda s: s.n)
        if points:
            mark, x = marks[f"{ratio:g}x"], [s.n for s in points]
            panel.plot(x, [s.ri for s in points], clip_on=False, **mark.look)
            panel.fill_between(x, [s.ri_low for s in points], [s.ri_high for s in points], color=mark.color, alpha=0.15)
            ends.append((f"{ratio:g}x", float(x[-1]), points[-1].ri, mark))
    ratio_axis(panel, [float(n) for n in view.ns])
    label_ends(panel, ends)
