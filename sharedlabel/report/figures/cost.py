"""RI against cost, with the Pareto front and the budget sweet spots."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharedlabel.config.names import DENSE, EXACT
from sharedlabel.records import Summary
from sharedlabel.report._panels import heading, log_axis, panels, stretched_axis, subject
from sharedlabel.report._theme import INK, MUTED, PAPER, Palette
from sharedlabel.report.views import View, method, winners

ORDER, PER = 10, "view"
HEADING = "Relative information against cost"
CAPTION = (
    "Each point is one method at one ratio and n. The line is the Pareto front of the points shown: no cheaper "
    "point has more information. Dotted lines are compute budgets; rings mark the sweet spots, which were chosen on"
    " validation, so they may lie a little off the front."
)
_COLUMNS = 3


def draw(view: View, palette: Palette) -> Figure:
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


def front(points: Sequence[Summary]) -> list[Summary]:
    """Keep the points that no cheaper or equally cheap point equals or beats in RI, by ascending cost."""
    kept: list[Summary] = []
    for point in sorted(points, key=lambda s: (s.cost_dense_passes, -s.ri)):
        if not kept or point.ri > kept[-1].ri:
            kept.append(point)
    return kept


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
