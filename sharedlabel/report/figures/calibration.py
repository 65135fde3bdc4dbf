"""Reliability before and after calibration, and the calibration error of every method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sharedlabel.records import Row
from sharedlabel.records.measurements import ReliabilityBin
from sharedlabel.records.written import number, percent
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark, Palette
from sharedlabel.report.figures._parts import subject
from sharedlabel.report.views import View, headline, method

SECTION, ORDER, PER = "trust", 60, "pruner"
HEADING = "Calibration"
CAPTION = (
    "Points above the dotted diagonal are under-confident, below over-confident. Hollow: before calibration; filled: "
    "after one temperature per n, fitted on validation the same way for every method."
)
_WHEN = {False: "before", True: "after"}


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw the reliability of every method before and after the temperature, and all calibration errors."""
    chosen = reliability_place(view, pruner)
    if chosen is None:
        return None
    ratio, n = chosen
    rows = [r for r in view.rows if (r.split, r.pruner, r.ratio, r.n) == ("test", pruner, ratio, n)]
    groups: dict[str, list[ReliabilityBin]] = {}
    for one in view.reliability:
        if (one.pruner, one.ratio, one.n) == (pruner, ratio, n) and one.mass > 0:
            groups.setdefault(method(one), []).append(one)
    panels = [_diagram(name, groups[name], palette) for name in sorted(groups)]
    about = f"{ratio:g}x, n = {n}; {subject(view, pruner)}, test"
    return Figure(about, (*([_errors(rows, palette)] if rows else []), *panels))


def reliability_place(view: View, pruner: str) -> tuple[float, int] | None:
    """Choose ratio and n of a reliability diagram: the headline's if it has bins, else the middle ratio, largest n."""
    places = sorted({(b.ratio, b.n) for b in view.reliability if b.pruner == pruner})
    if not places:
        return None
    spot = headline(view)
    if spot is not None and spot.ratio is not None and spot.n is not None and (spot.ratio, spot.n) in places:
        return spot.ratio, spot.n
    ratios = sorted({ratio for ratio, _ in places})
    ratio = ratios[(len(ratios) - 1) // 2]
    return ratio, max(n for r, n in places if r == ratio)


def _diagram(name: str, bins: Sequence[ReliabilityBin], palette: Palette) -> Panel:
    mark = palette[bins[0].aggregator]
    series = [
        Series(
            f"{name}, {when}",
            mark,
            tuple(
                Point(
                    b.confidence,
                    b.accuracy,
                    f"{name}, {when}: sure by {percent(b.confidence)}, {percent(b.accuracy)} right",
                    hollow=not calibrated,
                )
                for b in sorted(bins, key=lambda b: b.confidence)
                if b.calibrated == calibrated
            ),
            dashed=not calibrated,
        )
        for calibrated, when in _WHEN.items()
    ]
    x, y = axes.share("confidence"), axes.share("share that is right")
    return Panel(name, x, y, tuple(series), (Guide((0, 0), (1, 1)),), width=250)


def _errors(rows: Sequence[Row], palette: Palette) -> Panel:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(method(row), []).append(row)
    names = sorted(groups)
    series = tuple(
        _error(name, place, groups[name], palette[groups[name][0].aggregator]) for place, name in enumerate(names)
    )
    x = axes.linear("expected calibration error", [p.x for one in series for p in one.points], zero=True)
    return Panel("calibration error", x, axes.names(names), series)


def _error(name: str, place: int, rows: Sequence[Row], mark: Mark) -> Series:
    raw = statistics.fmean(row.calibration_error_raw for row in rows)
    tempered = statistics.fmean(row.calibration_error for row in rows)
    said = f"{name}: calibration error {number(raw)} before, {number(tempered)} after"
    return Series(name, mark, (Point(raw, -place, said, hollow=True), Point(tempered, -place, said)))
