"""The figure of ranks: methods on an axis by mean score, bars join those that are not shown to differ.

Reference:
    After the critical-difference diagram of Demsar, "Statistical comparisons of classifiers over multiple data sets"
    (2006); here pairs are judged one by one, so the bars have no common length.
"""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sharedlabel.records import Rank
from sharedlabel.report import standings
from sharedlabel.report._panels import heading, panel_ns, stretched_axis, subject
from sharedlabel.report._theme import INK, MUTED, PAPER, Palette
from sharedlabel.report.views import View, method

ORDER, PER = 30, "training"
HEADING = "Ranks of the aggregators"
CAPTION = (
    "Means over all compressed networks, the scores of each tuple averaged first, so that differences stay paired. "
    "A bar joins neighbours no two of which are shown to differ, adjusted for all pairs, n and metrics. The numbers"
    " are rank intervals: from 1 + methods shown to be better to all methods less those shown to be worse."
)

_LINE = 0.18  # inches per label
_BAR = 0.1  # inches per bar


def draw(view: View, training: str, palette: Palette) -> Figure | None:
    """Draw the standing of the aggregators over all networks, a panel per n; None if they were not compared."""
    ns = panel_ns(standings.sizes(view, training))
    orders = {n: standings.standing(view, training, n) for n in ns}
    if not orders:
        return None
    bars = {n: standings.joined(order) for n, order in orders.items()}
    labels = max(-(-len(order) // 2) for order in orders.values())
    depth = (labels + 1) * _LINE + (max(map(len, bars.values())) + 1) * _BAR
    figure = Figure(figsize=(9.0, len(ns) * (depth + 0.75) + 0.9), layout="constrained")
    some = orders[ns[0]][0]
    detail = f"{subject(view)}, mean over {some.networks} network{'s' * (some.networks > 1)}, test"
    heading(figure, "Mean RI and rank intervals; bars join methods not shown to differ", detail)
    for n, panel in zip(ns, figure.subplots(len(ns), 1, squeeze=False)[:, 0], strict=True):
        panel.set_title(f"n = {n}")
        _panel(panel, orders[n], bars[n], palette, depth)
    return figure


def _panel(panel: Axes, order: Sequence[Rank], bars: Sequence[tuple[int, int]], palette: Palette, depth: float) -> None:
    """Draw one n; y is in inches below the axis."""
    stretched_axis(panel, [rank.mean for rank in order], "x")
    low, high = panel.get_xlim()
    ticks = [float(tick) for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    panel.set_xticks(ticks, labels=[f"{tick:.4g}" for tick in ticks])
    panel.set_ylim(depth, -_BAR)
    panel.xaxis.tick_top()
    panel.yaxis.set_visible(False)
    panel.spines[["left", "bottom"]].set_visible(False)
    panel.spines["top"].set_visible(True)
    panel.grid(visible=False)
    for level, (first, last) in enumerate(bars, start=1):
        ends = [order[last].mean, order[first].mean]
        panel.plot(ends, [level * _BAR] * 2, color=INK, lw=3, solid_capstyle="round", clip_on=False, zorder=3)
    start = (len(bars) + 1) * _BAR
    half = len(order) // 2
    for position, rank in enumerate(order):
        best = position < half  # labels of the better half stand at the right, the best one on top
        level = position if best else len(order) - 1 - position
        height, edge = start + (level + 0.5) * _LINE, high if best else low
        mark = palette[rank.aggregator]
        panel.plot([rank.mean, rank.mean, edge], [0, height, height], color=MUTED, lw=0.6, clip_on=False, zorder=1)
        panel.plot(rank.mean, 0, mark.marker, color=mark.color, ms=6, mec=PAPER, mew=0.4, clip_on=False, zorder=4)
        text = f"{standings.span(rank)}  {method(rank)}" if best else f"{method(rank)}  {standings.span(rank)}"
        panel.annotate(
            text,
            (edge, height),
            (5 if best else -5, 0),
            textcoords="offset points",
            ha="left" if best else "right",
            va="center",
            annotation_clip=False,
        )
