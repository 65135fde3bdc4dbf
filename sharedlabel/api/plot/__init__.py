"""Plots of results, each on one matplotlib Axes.

```python
results = sharedlabel.load_results("runs/digits")
ax = sharedlabel.plot.ri_against_ratio(results)
ax.figure.savefig("ri.svg")
```

All show test, never validation. What is not said is chosen: the first data set, backbone and protocol, the pruner and
ratio of the sweet spot at one dense pass, and the largest n; the title says which. `ax=` draws into a plot of your own.
A plot refuses what it does not take, and says what it takes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import matplotlib.pyplot as plt
import matplotlib.style
from matplotlib.axes import Axes

from sharedlabel.api.plot._look import INK, MUTED, STYLE, Mark, Palette, log_axis, ratio_axis, stretched_axis
from sharedlabel.api.plot._selection import Selection, check_name, known_number, listed, select, strict
from sharedlabel.config.names import EXACT
from sharedlabel.errors import DataError
from sharedlabel.records import AdaptivePoint, Summary
from sharedlabel.report import adaptive as stops
from sharedlabel.report import views
from sharedlabel.report.figures._parts import curves, subject
from sharedlabel.report.figures.calibration import reliability_place
from sharedlabel.report.figures.cost import front
from sharedlabel.report.views import method

__all__ = [
    "adaptive",
    "n_accuracy_against_n",
    "n_accuracy_against_ratio",
    "pareto",
    "reliability",
    "ri_against_n",
    "ri_against_ratio",
]


def __dir__() -> list[str]:
    """List what there is to draw, and not what this module imports."""
    return sorted({*(name for name in globals() if name.startswith("__")), *__all__})


_METRICS = {"n_accuracy": "n-accuracy, stretched towards 1", "ri": "relative information, stretched towards 1"}


@strict
def ri_against_ratio(
    results: Any,
    *,
    n: int | None = None,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw relative information against the compression ratio: a line per aggregator, with 95% intervals.

    Args:
        results: from `sharedlabel.run` or `sharedlabel.load_results`.
        n: instances per tuple; the largest if left out.
        pruner: compression method; that of the sweet spot if left out.
        aggregators: label of the one to show, or labels of some; all if left out.
        ax: where to draw; a new figure if left out.
        where: `data`, `backbone` or `protocol`, where there are several.

    Raises:
        DataError: the results have no such n, pruner, aggregator, data set, backbone or protocol.
    """
    return _against_ratio(results, "ri", n, pruner, aggregators, ax, where)


@strict
def n_accuracy_against_ratio(
    results: Any,
    *,
    n: int | None = None,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw n-accuracy against the compression ratio; arguments are those of `ri_against_ratio`."""
    return _against_ratio(results, "n_accuracy", n, pruner, aggregators, ax, where)


@strict
def ri_against_n(
    results: Any,
    *,
    ratio: int | float | None = None,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw relative information against the number of instances: what further images give back.

    Args:
        results: as for `ri_against_ratio`.
        ratio: compression ratio; that of the sweet spot if left out.
        pruner: as for `ri_against_ratio`.
        aggregators: as for `ri_against_ratio`.
        ax: as for `ri_against_ratio`.
        where: as for `ri_against_ratio`.

    Raises:
        DataError: the results have nothing of that name or number.
    """
    return _against_n(results, "ri", ratio, pruner, aggregators, ax, where)


@strict
def n_accuracy_against_n(
    results: Any,
    *,
    ratio: int | float | None = None,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw n-accuracy against the number of instances; arguments are those of `ri_against_n`."""
    return _against_n(results, "n_accuracy", ratio, pruner, aggregators, ax, where)


@strict
def pareto(
    results: Any,
    *,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw relative information against cost, a point per aggregator, ratio and n, and the Pareto front of all.

    Args:
        results: as for `ri_against_ratio`.
        pruner: as for `ri_against_ratio`.
        aggregators: as for `ri_against_ratio`.
        ax: as for `ri_against_ratio`.
        where: as for `ri_against_ratio`.

    Raises:
        DataError: the results have nothing of that name.
    """
    chosen = select(results, pruner, where)
    lines = {name: points for name, points in chosen.tests(aggregators).items() if points[0].aggregator != EXACT}
    points = [point for line in lines.values() for point in line]
    ax = _axes(ax)
    stretched_axis(ax, [point.ri for point in points])
    for name, line in lines.items():
        mark = chosen.palette[line[0].aggregator]
        costs, values = [point.cost_dense_passes for point in line], [point.ri for point in line]
        ax.plot(costs, values, linestyle="", marker=mark.marker, color=mark.color, label=name, clip_on=False)
    best = front(points)
    costs = [point.cost_dense_passes for point in best]
    ax.plot(costs, [point.ri for point in best], color=INK, linewidth=1, drawstyle="steps-post", label="Pareto front")
    log_axis(ax)
    return _finished(
        ax, "cost (dense passes per tuple, log scale)", _METRICS["ri"], subject(chosen.view, chosen.pruner)
    )


@strict
def reliability(
    results: Any,
    *,
    calibrated: bool = True,
    ratio: int | float | None = None,
    n: int | None = None,
    pruner: str | None = None,
    aggregators: Collection[str] | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw how often answers are right against how sure they are; above the diagonal they are too unsure.

    Args:
        results: as for `ri_against_ratio`.
        calibrated: after one temperature per n, else before.
        ratio: compression ratio; that of the sweet spot if left out.
        n: instances per tuple; that of the sweet spot if left out.
        pruner: as for `ri_against_ratio`.
        aggregators: as for `ri_against_ratio`.
        ax: as for `ri_against_ratio`.
        where: as for `ri_against_ratio`.

    Raises:
        DataError: the results have nothing of that name or number.
    """
    chosen = select(results, pruner, where)
    chosen.tests(aggregators)  # refuses names that are not there
    places = {(one.ratio, one.n) for one in chosen.view.reliability if one.pruner == chosen.pruner}
    usual = reliability_place(chosen.view, chosen.pruner) or (1.0, 1)
    ratio = known_number("ratio", ratio, {place[0] for place in places}, usual[0])
    n = known_number("n", n, {place[1] for place in places}, usual[1])
    ax = _axes(ax)
    ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":")
    place = (chosen.pruner, ratio, n, calibrated)
    bins = [one for one in chosen.view.reliability if (one.pruner, one.ratio, one.n, one.calibrated) == place]
    for name in sorted({method(one) for one in bins}):
        line = sorted((one for one in bins if method(one) == name), key=lambda one: one.confidence)
        if line[0].aggregator in (listed(aggregators) or [line[0].aggregator]):
            x, y = [one.confidence for one in line], [one.accuracy for one in line]
            ax.plot(x, y, label=name, **chosen.palette[line[0].aggregator].look)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal")
    when = "calibrated" if calibrated else "before calibration"
    title = f"{subject(chosen.view, chosen.pruner)}, {ratio:g}x, n = {n}, {when}"
    return _finished(ax, "confidence (largest posterior)", "share that is right", title)


@strict
def adaptive(
    results: Any,
    *,
    metric: str = "ri",
    pruner: str | None = None,
    ax: Axes | None = None,
    **where: str,
) -> Axes:
    """Draw what it brings to look at instances only until the answer is sure, against fixed n: a colour per ratio.

    It shows the aggregator that is best on validation. Solid lines stop when they are sure, dashed ones after n.

    Args:
        results: as for `ri_against_ratio`.
        metric: `ri` or `n_accuracy`.
        pruner: as for `ri_against_ratio`.
        ax: as for `ri_against_ratio`.
        where: as for `ri_against_ratio`.

    Raises:
        DataError: the results have nothing of that name, or adaptive numbers of instances were off.
    """
    check_name("metric", metric, _METRICS)
    chosen = select(results, pruner, where)
    points = stops.points(chosen.view, chosen.pruner)
    if not points:
        raise DataError("expected results with adaptive numbers of instances, got none; run with adaptive.rules on")
    points = [point for point in points if point.rule == points[0].rule]
    best = points[0]
    fixed = [
        summary
        for summary in chosen.view.tests(chosen.pruner)
        if (summary.aggregator, summary.training) == (best.aggregator, best.training)
    ]
    ratios = stops.ratios(points)
    marks = Palette(f"{ratio:g}x" for ratio in ratios)
    ax = _axes(ax)
    both: list[AdaptivePoint | Summary] = [*points, *fixed]
    stretched_axis(ax, [getattr(one, metric + end) for one in both for end in ("", "_low", "_high")])
    for ratio in ratios:
        mark = marks[f"{ratio:g}x"]
        line = sorted((point for point in points if point.ratio == ratio), key=lambda point: point.instances)
        _line(ax, [point.instances for point in line], line, metric, mark, f"{ratio:g}x")
        same = sorted((summary for summary in fixed if summary.ratio == ratio), key=lambda summary: summary.n)
        x, y = [summary.n for summary in same], [getattr(summary, metric) for summary in same]
        ax.plot(x, y, color=mark.color, linestyle="--", linewidth=1)
    ratio_axis(ax, [float(n) for n in chosen.view.ns])
    title = f"{subject(chosen.view, chosen.pruner)}, {method(best)}, {best.rule} rule"
    return _finished(ax, "mean number of instances (log scale)", _METRICS[metric], title)


def _against_ratio(
    results: Any,
    metric: str,
    n: int | None,
    pruner: str | None,
    aggregators: Collection[str] | None,
    ax: Axes | None,
    where: dict[str, str],
) -> Axes:
    chosen = select(results, pruner, where)
    n = known_number("n", n, chosen.view.ns, chosen.view.ns[-1])

    named = chosen.tests(aggregators)
    lines = {name: line for name, line in curves(chosen.view, chosen.pruner, n, metric) if name in named}
    ax = _lines(chosen, metric, lines, [[point.ratio for point in line] for line in lines.values()], ax)
    ratio_axis(ax, chosen.view.ratios)
    title = f"{subject(chosen.view, chosen.pruner)}, n = {n}"
    return _finished(ax, "compression ratio (log scale)", _METRICS[metric], title)


def _against_n(
    results: Any,
    metric: str,
    ratio: int | float | None,
    pruner: str | None,
    aggregators: Collection[str] | None,
    ax: Axes | None,
    where: dict[str, str],
) -> Axes:
    chosen = select(results, pruner, where)
    spot = views.headline(chosen.view)
    usual = chosen.view.ratios[-1] if spot is None or spot.ratio is None else spot.ratio
    ratio = known_number("ratio", ratio, {point.ratio for point in chosen.view.tests(chosen.pruner)}, usual)

    lines = {
        name: sorted((p for p in points if p.ratio == ratio or p.aggregator == EXACT), key=lambda point: point.n)
        for name, points in chosen.tests(aggregators).items()
    }
    lines = {name: line for name, line in lines.items() if line}
    ax = _lines(chosen, metric, lines, [[float(point.n) for point in line] for line in lines.values()], ax)
    ratio_axis(ax, [float(n) for n in chosen.view.ns])
    title = f"{subject(chosen.view, chosen.pruner)}, {ratio:g}x"
    return _finished(ax, "instances per tuple (log scale)", _METRICS[metric], title)


def _lines(
    chosen: Selection, metric: str, lines: dict[str, list[Summary]], places: Iterable[Sequence[float]], ax: Axes | None
) -> Axes:
    """Draw a line per method, on an axis that is stretched towards 1."""
    ax = _axes(ax)
    shown = [point for line in lines.values() for point in line]
    stretched_axis(ax, [getattr(point, metric + end) for point in shown for end in ("", "_low", "_high")])
    for (name, line), x in zip(lines.items(), places, strict=True):
        _line(ax, x, line, metric, chosen.palette[line[0].aggregator], name)
    return ax


def _line(
    ax: Axes, x: Sequence[float], points: Sequence[Summary | AdaptivePoint], metric: str, mark: Mark, name: str
) -> None:
    """Draw a line with the band of its intervals."""
    low, high = ([getattr(point, f"{metric}_{end}") for point in points] for end in ("low", "high"))
    ax.fill_between(x, low, high, color=mark.color, alpha=0.15, linewidth=0)
    ax.plot(x, [getattr(point, metric) for point in points], label=name, clip_on=False, **mark.look)


def _axes(ax: Axes | None) -> Axes:
    """Return where to draw; a figure of our own looks like those of the report."""
    if ax is not None:
        return ax
    with matplotlib.style.context(STYLE):
        made: Axes = plt.subplots(figsize=(6.5, 4), layout="constrained")[1]
    return made


def _finished(ax: Axes, x: str, y: str, title: str) -> Axes:
    """Label the axes and name the lines."""
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(f"{title}, test", fontsize=9, wrap=True)
    ax.legend(fontsize=8)
    return ax
