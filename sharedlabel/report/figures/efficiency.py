"""Efficiency against the compression ratio, with the sweet spots of two rules."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharedlabel.config.names import EXACT
from sharedlabel.records import SweetSpot
from sharedlabel.report._panels import (
    heading,
    log_axis,
    panel_ns,
    panels,
    subject,
)
from sharedlabel.report._theme import INK, Palette
from sharedlabel.report.figures._lines import draw_lines, label_last
from sharedlabel.report.sentences import title
from sharedlabel.report.views import View, method

ORDER, PER = 50, "pruner"
HEADING = "Efficiency against compression"
CAPTION = (
    "Bits per dense pass. It rewards ever smaller networks, so its maximum is no recommendation; rings show what "
    "the rules choose."
)
_RINGS = {"retain": ("o", 9.0), "budget": ("s", 12.0)}


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw efficiency against the ratio, a panel per n, with the sweet spots of two rules marked."""
    ns = panel_ns(view.ns)
    figure, axes = panels(1, len(ns), height=2.9)
    heading(figure, "Efficiency against compression: a curve to look at, not a rule", subject(view, pruner) + ", test")
    positive = all(s.efficiency > 0 for s in view.tests(pruner) if s.aggregator != EXACT)
    marked = [
        s for s in view.sweet_spots if s.pruner == pruner and (s.rule == "retain" or (s.rule, s.value) == ("budget", 1))
    ]
    for panel, n in zip(axes[0], ns, strict=True):
        draw_lines(panel, view, pruner, n, "efficiency", palette, band=False)
        panel.set_title(f"n = {n}")
        _rings(panel, view, pruner, [s for s in marked if s.n == n])
        if positive:
            log_axis(panel, "y")
    axes[0][0].set_ylabel("efficiency (bits per dense pass" + (", log scale)" if positive else ")"))
    figure.supxlabel("compression ratio, dense / compressed parameters (log scale)", fontsize=8.5)
    label_last(axes, view, pruner, ns[-1], ("efficiency",), palette)
    _ring_legend(figure, marked)
    return figure


def _rings(panel: Axes, view: View, pruner: str, spots: Sequence[SweetSpot]) -> None:
    heights = {(method(s), s.ratio, s.n): s.efficiency for s in view.tests(pruner)}
    for spot in spots:
        height = heights.get((method(spot), spot.ratio or 0.0, spot.n or 0))
        if height is not None and spot.ratio is not None:
            marker, size = _RINGS[spot.rule]
            panel.plot(spot.ratio, height, marker, markersize=size, mfc="none", mec=INK, mew=0.9, zorder=4)


def _ring_legend(figure: Figure, spots: Sequence[SweetSpot]) -> None:
    names: dict[str, str] = {spot.rule: title(spot).split(", n =")[0] for spot in spots}
    handles = [
        Line2D(
            [],
            [],
            ls="",
            marker=_RINGS[rule][0],
            ms=_RINGS[rule][1] - 2,
            mfc="none",
            mec=INK,
            label=f"sweet spot: {name}",
        )
        for rule, name in sorted(names.items())
    ]
    if handles:
        figure.legend(handles=handles, loc="outside upper right", ncols=2, fontsize=8.5)
