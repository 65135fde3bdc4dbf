"""Figures with cost or confidence on the x axis."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sharedlabel.names import DENSE, EXACT
from sharedlabel.records import ReliabilityBin, Row, Summary
from sharedlabel.report._panels import heading, log_axis, panels, stretched_axis, subject
from sharedlabel.report._theme import INK, MUTED, PAPER, Palette
from sharedlabel.report.views import View, headline, method, winners

_COLUMNS = 3


def front(points: Sequence[Summary]) -> list[Summary]:
    """Keep the points that no cheaper or equally cheap point equals or beats in RI, by ascending cost."""
    kept: list[Summary] = []
    for point in sorted(points, key=lambda s: (s.cost_dense_passes, -s.ri)):
        if not kept or point.ri > kept[-1].ri:
            kept.append(point)
    return kept


def against_cost(view: View, palette: Palette) -> Figure:
    """Draw RI against cost, a panel per pruner, with the Pareto front and the budget sweet spots."""
    pruners = view.pruners
    columns = min(len(pruners), _COLUMNS)
    figure, axes = panels(-(-len(pruners) // columns), columns, height=3.6)
    heading(figure, "RI against cost, with the Pareto front", subject(view) + ", test, larger markers: more images")
    flat = [panel for line in axes for panel in line]
    for panel in flat[len(pruners) :]:
        panel.set_axis_off()
    names: dict[str, str] = {}
    everything = sorted((s for s in view.tests() if s.aggregator != EXACT), key=lambda s: s.cost_dense_passes)
    stretched_axis(flat[0], [s.ri for s in everything])
    for panel, pruner in zip(flat, pruners, strict=False):
        points = [s for s in view.tests(pruner) if s.aggregator != EXACT]
        panel.set_xlim(everything[0].cost_dense_passes / 4, everything[-1].cost_dense_passes * 1.3)
        names |= {method(s): s.aggregator for s in points}
        log_axis(panel, "x")
        _cloud(panel, points, palette)
        _front(panel, front(points))
        _budgets(panel, view, pruner)
        panel.set_title(f"pruned by {pruner}" if pruner != DENSE else "dense only")
        panel.set_xlabel("cost (dense passes per tuple, log scale)")
    for line in axes:
        line[0].set_ylabel("RI, stretched towards 1")
    _legend(figure, names, palette)
    return figure


def _cloud(panel: Axes, points: Sequence[Summary], palette: Palette) -> None:
    for s in points:
        mark, size = palette[s.aggregator], 2.6 + 1.1 * s.n.bit_length()
        panel.plot(
            s.cost_dense_passes,
            s.ri,
            mark.marker,
            color=mark.color,
            ms=size,
            alpha=0.75,
            mec=PAPER,
            mew=0.4,
            clip_on=False,
        )


def _front(panel: Axes, points: Sequence[Summary]) -> None:
    costs = [s.cost_dense_passes for s in points]
    panel.plot(costs, [s.ri for s in points], color=INK, lw=1, drawstyle="steps-post", zorder=1.5)
    placed: list[tuple[float, float]] = []
    for s in points:
        x, y = panel.transAxes.inverted().transform(panel.transData.transform((s.cost_dense_passes, s.ri)))
        if all(abs(x - other) > 0.2 or abs(y - below) > 0.06 for other, below in placed):
            text = f"{s.ratio:g}x, n = {s.n}"
            panel.annotate(
                text, (s.cost_dense_passes, s.ri), (-6, 4), textcoords="offset points", ha="right", fontsize=8
            )
            placed.append((x, y))


def _budgets(panel: Axes, view: View, pruner: str) -> None:
    own = dataclasses.replace(view, sweet_spots=tuple(s for s in view.sweet_spots if s.pruner == pruner))
    for spot in winners(own, ("budget",)):
        panel.axvline(spot.value or 0.0, color=MUTED, lw=0.8, ls=":", zorder=1)
        if spot.cost_dense_passes is not None and spot.ri is not None:
            panel.plot(spot.cost_dense_passes, spot.ri, "o", ms=10, mfc="none", mec=INK, mew=1)


def _legend(figure: Figure, names: dict[str, str], palette: Palette) -> None:
    handles = [
        Line2D([], [], ls="", marker=palette[a].marker, color=palette[a].color, ms=6, label=name)
        for name, a in sorted(names.items())
    ]
    front_line = Line2D([], [], color=INK, lw=1, label="Pareto front")
    spot = Line2D([], [], ls="", marker="o", ms=9, mfc="none", mec=INK, label="budget sweet spot")
    figure.legend(handles=[*handles, front_line, spot], loc="outside right center", fontsize=8.5)


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


def calibration(view: View, pruner: str, palette: Palette) -> Figure | None:
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
