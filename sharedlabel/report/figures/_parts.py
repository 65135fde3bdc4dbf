"""What several figures say and draw."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

from sharedlabel.config.names import DENSE, EXACT
from sharedlabel.records import AdaptivePoint, Summary
from sharedlabel.records.written import number
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.axes import Axis
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark, Palette
from sharedlabel.report.views import View, method, winners

MOST = 5  # panels, or lines of one method
BANDS = "test, bands: 95% intervals"
LABELS = {"ri": "RI", "n_accuracy": "n-accuracy", "efficiency": "bits per dense pass"}
RATIO = "compression ratio"


def subject(view: View, pruner: str | None = None, *, protocol: bool = True) -> str:
    """Phrase what a figure is about: data, backbone, pruner, protocol and seeds."""
    pruned = [] if pruner is None else ["dense only" if pruner == DENSE else f"pruned by {pruner}"]
    tuples = [f"{view.protocol} tuples"] if protocol else []
    return ", ".join([view.data, view.backbone, *pruned, *tuples, f"{view.seeds} seed{'s' * (view.seeds > 1)}"])


def panel_ns(ns: Sequence[int]) -> list[int]:
    """Choose at most five n for panels: all, else powers of two, else evenly spaced ones.

    >>> panel_ns(range(1, 17))
    [1, 2, 4, 8, 16]
    """
    chosen = list(ns)
    if len(chosen) > MOST:
        powers = [n for n in chosen if n & (n - 1) == 0]
        chosen = powers if len(powers) > 1 else chosen
    return some(chosen)


def some(values: Sequence[float]) -> list:  # type: ignore[type-arg]
    """Keep at most five values, the first and the last among them."""
    if len(values) <= MOST:
        return list(values)
    return [values[round(place * (len(values) - 1) / (MOST - 1))] for place in range(MOST)]


def ratios(view: View, values: Sequence[float]) -> tuple[list[float], str]:
    """Keep at most five ratios, with the first, the last and all that are recommended; and say which are left out.

    Args:
        view: whose budgets recommend some.
        values: ratios, ascending.
    """
    chosen = {spot.ratio for spot in winners(view, ("budget",))}
    kept = {*values[:1], *values[-1:], *(value for value in values if value in chosen)}
    for value in some(values):
        if len(kept) < MOST:
            kept.add(value)
    missing = [f"{value:g}x" for value in values if value not in kept]
    return sorted(kept), f"; {', '.join(missing)} left out" if missing else ""


def with_interval(record: Summary | AdaptivePoint, metric: str) -> str:
    """Write a score with its interval."""
    middle, low, high = (number(getattr(record, metric + end)) for end in ("", "_low", "_high"))
    return f"{LABELS[metric]} {middle} [{low}, {high}]"


def stretched(label: str, records: Sequence[Summary | AdaptivePoint], metric: str) -> Axis:
    """Return an axis for the scores of records, and for their intervals as far as these can be read."""
    ends = [float(getattr(record, metric + end)) for record in records for end in ("_low", "_high")]
    return axes.stretched(label, [float(getattr(record, metric)) for record in records], ends)


def cut(panels: Iterable[Panel]) -> tuple[str, ...]:
    """Note that intervals go on beyond the end of an axis, where some do."""
    bounded = [
        (panel.x if series.spread == "sideways" else panel.y, point.low, point.high)
        for panel in panels
        for series in panel.series
        if series.spread
        for point in series.points
    ]
    beyond = any(
        low is not None and high is not None and (low < axis.low or axis.high < high < axes.LAST)
        for axis, low, high in bounded
    )
    return ("intervals are cut where the axis ends",) if beyond else ()


def scored(record: Summary | AdaptivePoint, metric: str, x: float, said: str) -> Point:
    """Return a score as a point with its interval."""
    y, low, high = (float(getattr(record, metric + end)) for end in ("", "_low", "_high"))
    return Point(x, y, f"{said}: {with_interval(record, metric)}", low, high)


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


def against_ratio(view: View, pruner: str, palette: Palette, metric: str) -> Figure:
    """Draw a score against the ratio: a panel per n, a line per method."""
    panels, legend = [], dict[str, Mark]()
    for n in panel_ns(view.ns):
        lines = dict(curves(view, pruner, n, metric))
        legend |= {name: palette[points[0].aggregator] for name, points in lines.items()}
        series = [
            Series(
                name,
                legend[name],
                tuple(scored(p, metric, p.ratio, f"{name}, {p.ratio:g}x, n = {n}") for p in points),
                spread="band",
            )
            for name, points in lines.items()
        ]
        y = stretched(LABELS[metric], [point for points in lines.values() for point in points], metric)
        panels.append(Panel(f"n = {n}", axes.powers(RATIO, view.ratios, "x"), y, tuple(series)))
    return Figure(f"{subject(view, pruner)}, {BANDS}", tuple(panels), tuple(legend.items()), cut(panels))
