"""Reliability before and after calibration, and the calibration error of every method."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sharedlabel.records import Row
from sharedlabel.records.measurements import ReliabilityBin
from sharedlabel.report._panels import heading, panels, subject
from sharedlabel.report._theme import MUTED, PAPER, Palette
from sharedlabel.report.views import View, headline, method

ORDER, PER = 60, "pruner"
HEADING = "Calibration"
CAPTION = (
    "Points above the diagonal are under-confident, below over-confident. One temperature per n is fitted on "
    "validation, the same way for every method."
)


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw reliability before and after the temperature, and the expected calibration error of every method."""
    chosen = reliability_place(view, pruner)
    if chosen is None:
        return None
    ratio, n = chosen
    bins = [b for b in view.reliability if (b.pruner, b.ratio, b.n) == (pruner, ratio, n)]
    figure, ((before, after, errors),) = panels(1, 3, height=3.2, sharey="none")
    heading(figure, f"Calibration at {ratio:g}x, n = {n}", subject(view, pruner) + ", test")
    for panel, calibrated, name in (
        (before, False, "before calibration"),
        (after, True, "after one temperature per n"),
    ):
        _diagram(panel, [b for b in bins if b.calibrated == calibrated], palette)
        panel.set_title(name)
    before.set_ylabel("accuracy in the bin")
    _errors(errors, [r for r in view.rows if (r.split, r.pruner, r.ratio, r.n) == ("test", pruner, ratio, n)], palette)
    return figure


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


def _diagram(panel: Axes, bins: Sequence[ReliabilityBin], palette: Palette) -> None:
    panel.plot([0, 1], [0, 1], color=MUTED, lw=0.8, ls=":")
    lines: dict[str, list[ReliabilityBin]] = {}
    for item in bins:
        if item.mass > 0:
            lines.setdefault(method(item), []).append(item)
    for _, line in sorted(lines.items()):
        mark, ordered = palette[line[0].aggregator], sorted(line, key=lambda b: b.confidence)
        x, y = [b.confidence for b in ordered], [b.accuracy for b in ordered]
        panel.plot(x, y, ls=mark.dash, marker=mark.marker, color=mark.color, mec=PAPER, mew=0.4)
    panel.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="confidence (largest posterior)", aspect="equal")


def _errors(panel: Axes, rows: Sequence[Row], palette: Palette) -> None:
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(method(row), []).append(row)
    names = sorted(groups, reverse=True)
    for y, name in enumerate(names):
        mark = palette[groups[name][0].aggregator]
        raw, tempered = (
            statistics.fmean(getattr(r, c) for r in groups[name])
            for c in ("calibration_error_raw", "calibration_error")
        )
        panel.plot([raw, tempered], [y, y], color=mark.color, lw=1.2)
        panel.plot(raw, y, mark.marker, ms=6, mfc=PAPER, mec=mark.color)
        panel.plot(tempered, y, mark.marker, ms=6, color=mark.color)
    panel.set_yticks(range(len(names)), labels=names)
    panel.set(ylim=(-0.6, len(names) - 0.4), title="hollow: before, filled: after", xlabel="expected calibration error")
    panel.set_xlim(left=0)
    panel.xaxis.set_major_locator(MaxNLocator(5))
    panel.grid(visible=False, axis="y")
