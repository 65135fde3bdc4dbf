"""The figure of adaptive against fixed numbers of instances."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sharedlabel.records import AdaptivePoint, Summary
from sharedlabel.report import adaptive
from sharedlabel.report._panels import (
    MAX_PANELS,
    heading,
    log_axis,
    panels,
    ratio_axis,
    stretched_axis,
    subject,
)
from sharedlabel.report._theme import INK, MUTED, PAPER, Mark, Palette
from sharedlabel.report.views import View, method

ORDER, PER = 40, "pruner"
HEADING = "Adaptive against fixed n"
CAPTION = (
    "Adaptive n looks at further images only while the answer is not sure, by thresholds that were fitted on "
    "validation, for the method that is best there. Right: how often a decision that reached the threshold is "
    "wrong, against the error that it was fitted for; what is below the lower edge sits on it."
)

_FIXED = (0, (4.0, 1.5))


def draw(view: View, pruner: str, palette: Palette) -> Figure | None:
    """Draw n-accuracy and RI against the mean number of instances, and realised against nominal errors.

    A line per ratio, at most five of them, of the method that is best on validation; None without adaptive n.
    """
    del palette  # its names are methods; here one method is drawn at several ratios
    points = adaptive.points(view, pruner)
    if not points:
        return None
    rule = points[0].rule
    kept = _some(adaptive.ratios(points))
    own = [point for point in points if point.rule == rule and point.ratio in kept]
    marks = Palette(f"{ratio:g}x" for ratio in kept)
    figure, ((accuracy, ri, errors),) = panels(1, 3, height=3.4, sharey="none")
    heading(
        figure,
        f"Adaptive against fixed n: {method(own[0])}, {rule} rule",
        subject(view, pruner) + ", test, bands and bars: 95% intervals",
    )
    for panel, metric, label in ((accuracy, "n_accuracy", "n-accuracy"), (ri, "ri", "RI")):
        _curves(panel, view, pruner, own, metric, marks)
        panel.set_ylabel(f"{label}, stretched towards 1")
        panel.set_xlabel("mean number of images (log scale)")
    _errors(errors, [point for point in own if point.aim == "error"], marks)
    styles = [
        Line2D([], [], color=INK, marker="o", label=f"adaptive n, at most {own[0].n_max}"),
        Line2D([], [], color=INK, ls=_FIXED, lw=1, label="fixed n"),
        *(Line2D([], [], color=m.color, marker=m.marker, label=name) for name, m in _named(kept, marks)),
    ]
    figure.legend(handles=styles, loc="outside right center", fontsize=8.5)
    return figure


def _some(ratios: Sequence[float]) -> list[float]:
    """Keep at most five ratios, the smallest and the largest among them."""
    if len(ratios) <= MAX_PANELS:
        return list(ratios)
    return [ratios[round(i * (len(ratios) - 1) / (MAX_PANELS - 1))] for i in range(MAX_PANELS)]


def _named(ratios: Sequence[float], marks: Palette) -> list[tuple[str, Mark]]:
    return [(f"{ratio:g}x", marks[f"{ratio:g}x"]) for ratio in ratios]


def _curves(panel: Axes, view: View, pruner: str, points: Sequence[AdaptivePoint], metric: str, marks: Palette) -> None:
    some = points[0]
    fixed = [s for s in view.tests(pruner) if (s.aggregator, s.training) == (some.aggregator, some.training)]
    ratios = adaptive.ratios(points)
    drawn: list[AdaptivePoint | Summary] = [*points, *(s for s in fixed if s.ratio in ratios)]
    stretched_axis(panel, [getattr(one, metric + end) for one in drawn for end in ("", "_low", "_high")])
    for ratio, (_, mark) in zip(ratios, _named(ratios, marks), strict=True):
        line = sorted((p for p in points if p.ratio == ratio), key=lambda p: p.instances)
        x, y = [p.instances for p in line], [getattr(p, metric) for p in line]
        low, high = ([getattr(p, f"{metric}_{end}") for p in line] for end in ("low", "high"))
        panel.fill_between(x, low, high, color=mark.color, alpha=0.15, linewidth=0)
        panel.plot(x, y, color=mark.color, marker=mark.marker, mec=PAPER, mew=0.4, clip_on=False)
        same = sorted((s for s in fixed if s.ratio == ratio), key=lambda s: s.n)
        panel.plot([s.n for s in same], [getattr(s, metric) for s in same], color=mark.color, ls=_FIXED, lw=1)
    ratio_axis(panel, [float(n) for n in view.ns])


def _errors(panel: Axes, points: Sequence[AdaptivePoint], marks: Palette) -> None:
    """Draw realised errors on the diagonal of nominal ones; what is below the lower edge sits on it."""
    panel.set_xlabel("nominal error (log scale)")
    panel.set_ylabel("wrong when sure (log scale)")
    nominal = sorted({p.value for p in points})
    if not nominal:
        panel.set_axis_off()
        return
    low, high = nominal[0] / 4, max(*nominal, *(p.error_high or 0.0 for p in points)) * 1.3
    panel.plot([low, high], [low, high], color=MUTED, lw=0.8, ls=":")
    ratios = adaptive.ratios(points)
    for at, (ratio, (_, mark)) in enumerate(zip(ratios, _named(ratios, marks), strict=True)):
        line = sorted((p for p in points if p.ratio == ratio and p.error is not None), key=lambda p: p.value)
        x = [
            p.value * 1.04 ** (at - (len(ratios) - 1) / 2) for p in line
        ]  # side by side, so that bars can be told apart
        ends = [[max(value or 0.0, low) for value in (p.error_low, p.error, p.error_high)] for p in line]
        panel.vlines(x, [end[0] for end in ends], [end[2] for end in ends], color=mark.color, lw=1, alpha=0.6)
        panel.plot(x, [end[1] for end in ends], ls="", marker=mark.marker, color=mark.color, ms=5, mec=PAPER, mew=0.4)
    panel.set(xlim=(nominal[0] / 1.5, nominal[-1] * 1.5), ylim=(low, high))
    for axis in "xy":
        log_axis(panel, axis)
