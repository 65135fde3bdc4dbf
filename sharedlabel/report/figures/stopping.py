"""Adaptive against fixed numbers of instances."""

from __future__ import annotations

from collections.abc import Sequence

from sharedlabel.records import AdaptivePoint, Summary
from sharedlabel.records.written import percent
from sharedlabel.report import adaptive
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures import _parts
from sharedlabel.report.figures._parts import LABELS, scored, subject
from sharedlabel.report.views import View, method

SECTION, ORDER, PER = "stop", 40, "pruner"
HEADING = "Adaptive against fixed n"
CAPTION = (
    "Adaptive n (solid) looks at further images only while the answer is not sure, by thresholds that were fitted on "
    "validation, for the method that is best there; fixed n is dashed. Right: how often a decision that reached the "
    "threshold is wrong, against the error that it was fitted for; what is below the lower edge sits on it."
)
_SIDE_BY_SIDE = 1.04  # so that bars can be told apart


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw n-accuracy and RI against the mean number of instances, and realised against nominal errors.

    A line per ratio, of five or those that are recommended, of the method best on validation; None without adaptive n.
    """
    del palette  # its names are methods; here one method is drawn at several ratios
    points = adaptive.points(view, pruner)
    if not points:
        return None
    kept, missing = _parts.ratios(view, adaptive.ratios(points))
    own = [point for point in points if point.rule == points[0].rule and point.ratio in kept]
    marks = Palette(f"{ratio:g}x" for ratio in kept)
    panels = [_curves(view, pruner, own, metric, marks) for metric in ("ri", "n_accuracy")]
    errors = _errors([point for point in own if point.aim == "error"], marks)
    legend = tuple((f"{ratio:g}x", marks[f"{ratio:g}x"]) for ratio in kept)
    about = f"{method(own[0])}, {own[0].rule} rule, at most {own[0].n_max} images; {subject(view, pruner)}, test"
    return Figure(f"{about}, bands and bars: 95% intervals{missing}", (*panels, *errors), legend, _parts.cut(panels))


def _curves(view: View, pruner: str, points: Sequence[AdaptivePoint], metric: str, marks: Palette) -> Panel:
    ratios, shown = adaptive.ratios(points), (points[0].aggregator, points[0].training)
    fixed = [s for s in view.tests(pruner) if (s.aggregator, s.training) == shown and s.ratio in ratios]
    series = []
    for ratio in ratios:
        name, mark = f"{ratio:g}x", marks[f"{ratio:g}x"]
        line = sorted((p for p in points if p.ratio == ratio), key=lambda p: p.instances)
        same = sorted((s for s in fixed if s.ratio == ratio), key=lambda s: s.n)
        looked = tuple(scored(p, metric, p.instances, f"{name}, {p.instances:.2f} images on average") for p in line)
        always = tuple(scored(s, metric, s.n, f"{name}, always {s.n} images") for s in same)
        series += [
            Series(name, mark, looked, spread="band"),
            Series(name, mark, always, dots=False, dashed=True),
        ]
    both: list[AdaptivePoint | Summary] = [*points, *fixed]
    x = axes.powers("mean number of images", [float(n) for n in view.ns])
    return Panel(LABELS[metric], x, _parts.stretched("stretched towards 1", both, metric), tuple(series))


def _errors(points: Sequence[AdaptivePoint], marks: Palette) -> list[Panel]:
    """Draw realised errors beside the diagonal of nominal ones; no panel where none was asked for."""
    nominal = sorted({p.value for p in points})
    if not nominal:
        return []
    low, high = nominal[0] / 4, max(*nominal, *(p.error_high or 0.0 for p in points)) * 1.1
    ratios = adaptive.ratios(points)
    series = []
    for place, ratio in enumerate(ratios):
        shift = _SIDE_BY_SIDE ** (place - (len(ratios) - 1) / 2)
        line = sorted((p for p in points if p.ratio == ratio and p.error is not None), key=lambda p: p.value)
        drawn = tuple(_error(p, low, shift) for p in line)
        series.append(Series(f"{ratio:g}x", marks[f"{ratio:g}x"], drawn, line="", spread="bars"))
    x, y = axes.log("nominal error", [nominal[0], nominal[-1]]), axes.log("wrong when sure", [low, high])
    diagonal = Guide((x.low, x.low), (x.high, x.high))
    return [Panel("errors", x, y, tuple(one for one in series if one.points), (diagonal,))]


def _error(point: AdaptivePoint, least: float, shift: float) -> Point:
    low, middle, high = (max(value or 0.0, least) for value in (point.error_low, point.error, point.error_high))
    wrong = percent(point.error or 0.0)
    said = f"{point.ratio:g}x, fitted for {percent(point.value)}: {wrong} wrong when sure"
    return Point(point.value * shift, middle, said, low, high)
