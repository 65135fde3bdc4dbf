"""What adaptive numbers of instances bring: which method is shown, a table, a sentence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from sharedlabel.config.names import DENSE, EXACT, network_name
from sharedlabel.records import AdaptivePoint, Summary
from sharedlabel.records.written import number, percent
from sharedlabel.report.costs import Table
from sharedlabel.report.views import View, headline, method

_HEADER = (
    "network",
    "rule",
    "nominal error",
    "wrong when sure",
    "never sure",
    "mean n",
    "dense passes",
    "right",
    "RI",
    "gain in n-accuracy",
    "gain in RI",
)


def shown(view: View) -> tuple[str, str] | None:
    """Choose the aggregator and training to show: the highest RI on validation, over all networks and n; or None."""
    known = {(point.aggregator, point.training) for point in view.adaptive}
    groups: dict[tuple[str, str], list[Summary]] = {}
    for summary in view.summaries:
        key = (summary.aggregator, summary.training)
        if summary.split == "validation" and summary.aggregator != EXACT and key in known:
            groups.setdefault(key, []).append(summary)
    return max(groups, key=lambda key: fmean(s.ri for s in groups[key])) if groups else None


def points(view: View, pruner: str | None = None) -> list[AdaptivePoint]:
    """List the points of the shown method, on the networks of one pruner (the dense one included) or on all."""
    chosen = shown(view)
    return [
        point
        for point in view.adaptive
        if (point.aggregator, point.training) == chosen and (pruner is None or point.pruner in {pruner, DENSE})
    ]


def table(view: View) -> Table | None:
    """Tabulate the stops for nominal errors on every network; None where no threshold was fitted."""
    chosen = sorted(
        (point for point in points(view) if point.aim == "error"),
        key=lambda p: (p.pruner != DENSE, p.pruner, p.ratio, p.rule, -p.value),
    )
    if not chosen:
        return None
    seeds = f"{view.seeds} seed{'s' * (view.seeds > 1)}"
    caption = f"{view.data}, {view.backbone}, {view.protocol} tuples, {method(chosen[0])}, {seeds}"
    return Table(caption, _HEADER, tuple(_line(point) for point in chosen))


def unfitted(view: View) -> str:
    """Say that no threshold could be fitted, where it was tried; empty where one was."""
    if not view.thresholds or table(view) is not None:
        return ""
    errors = sorted({one.nominal_error for one in view.thresholds}, reverse=True)
    return (
        f"{view.data}, {view.backbone}, {view.protocol} tuples: no threshold could be fitted. However sure an answer "
        "on validation has to be, more of the sure ones are wrong than any nominal error allows "
        f"({', '.join(map(percent, errors))})."
    )


def sentence(view: View) -> str:
    """Say what a rule saves on the network of the headline; empty where no threshold was fitted for it."""
    spot = headline(view)
    here = [p for p in points(view) if p.aim == "error" and spot and (p.pruner, p.ratio) == (spot.pruner, spot.ratio)]
    rules = [p for p in here if p.rule == here[0].rule]
    if not rules:
        return ""
    point = sorted(rules, key=lambda p: -p.value)[len(rules) // 2]
    place = "the dense network" if point.pruner == DENSE else f"{point.pruner} {point.ratio:g}x"
    gain = _interval(point.ri_gain, point.ri_gain_low, point.ri_gain_high, sign="+")
    return (
        f"{method(point)} on {place}, stopped by its {point.rule} rule for {percent(point.value)} errors, looks at "
        f"{point.instances:.1f} images on average, of at most {point.n_max}. It is sure of "
        f"{percent(1 - point.truncated)} of the labels and wrong in {percent(point.error or 0.0)} of these; over all, "
        f"{percent(point.n_accuracy)} right and RI {number(point.ri)}, for {point.cost_dense_passes:.2f} dense passes. "
        f"Gain in RI over fixed n at the same mean cost: {gain}."
    )


def _line(point: AdaptivePoint) -> tuple[str, ...]:
    wrong = "" if point.error is None else _shares(point.error, point.error_low or 0.0, point.error_high or 0.0)
    return (
        network_name(point.pruner, point.ratio),
        point.rule,
        percent(point.value),
        wrong,
        percent(point.truncated),
        f"{point.instances:.2f} [{point.instances_low:.2f}, {point.instances_high:.2f}]",
        f"{point.cost_dense_passes:.2f}",
        percent(point.n_accuracy),
        number(point.ri),
        _interval(point.n_accuracy_gain, point.n_accuracy_gain_low, point.n_accuracy_gain_high, sign="+"),
        _interval(point.ri_gain, point.ri_gain_low, point.ri_gain_high, sign="+"),
    )


def _shares(middle: float, low: float, high: float) -> str:
    return f"{percent(middle)} [{percent(low, '')}, {percent(high, '')}]"


def _interval(middle: float, low: float, high: float, sign: str = "") -> str:
    texts = [f"{round(value, 3) + 0.0:{sign}.3f}" for value in (middle, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def ratios(points: Iterable[AdaptivePoint]) -> Sequence[float]:
    """List the requested ratios of points, ascending."""
    return sorted({point.ratio for point in points})
