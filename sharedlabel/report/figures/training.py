"""Training curves: of the dense network, of compressed ones, and of what looks at one of them."""

from __future__ import annotations

from collections.abc import Sequence

from sharedlabel.config.names import DENSE, method_name, network_name
from sharedlabel.records.training import TrainingCurve
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark, Palette
from sharedlabel.report.figures._parts import ratios, subject
from sharedlabel.report.views import View, headline

SECTION, ORDER, PER, ASIDE = "how", 70, "view", True
HEADING = "Training curves"
CAPTION = (
    "Mean training loss of every epoch, of the first seed: of networks by their ratio, and of what fuses their answers."
)
_DOTS = 20  # epochs, up to which each is marked
_NETWORKS = {"dense": "dense network", "prune": "retraining"}


def draw(view: View, palette: Palette) -> Figure | None:
    """Draw the losses of networks, and of aggregators on that of the headline; None where nothing is stored."""
    pruner, ratio = _place(view)
    networks = [c for c in view.curves if c.aggregator is None and c.pruner in {pruner, DENSE}]
    kept, missing = ratios(view, sorted({curve.ratio for curve in networks}))
    marks = Palette(f"{ratio:g}x" for ratio in kept)
    panels = []
    for stage, title in _NETWORKS.items():
        drawn = [(f"{c.ratio:g}x", marks[f"{c.ratio:g}x"], c) for c in networks if c.stage == stage and c.ratio in kept]
        panels += _panel(title if stage == "dense" else f"{title}, {pruner}", drawn)
    fused = [
        (method_name(c.aggregator, c.training), palette[c.aggregator], c)
        for c in view.curves
        if c.aggregator is not None and (c.pruner, c.ratio) == (pruner, ratio)
    ]
    panels += _panel(f"aggregators, {network_name(pruner, ratio)}", sorted(fused, key=lambda one: one[0]))
    if not panels:
        return None
    legend = {series.name: series.mark for panel in panels for series in panel.series}
    return Figure(f"{subject(view)}{missing}", tuple(panels), tuple(legend.items()))


def _place(view: View) -> tuple[str, float]:
    """Return pruner and ratio of the headline, or of the strongest compression."""
    spot = headline(view)
    ratio = view.ratios[-1] if spot is None or spot.ratio is None else spot.ratio
    return (DENSE, 1.0) if ratio == 1 else (view.pruners[0] if spot is None else spot.pruner, ratio)


def _panel(title: str, drawn: Sequence[tuple[str, Mark, TrainingCurve]]) -> list[Panel]:
    """Draw curves, named and marked; no panel where there are none."""
    series = []
    for name, mark, curve in drawn:
        points = [
            Point(epoch, loss, f"{name}, epoch {epoch}: {loss:.3g} nats")
            for epoch, loss in enumerate(curve.losses, start=1)
        ]
        if points:
            series.append(Series(name, mark, tuple(points), dots=len(points) <= _DOTS))
    if not series:
        return []
    last = max(point.x for one in series for point in one.points)
    losses = [point.y for one in series for point in one.points]
    y = (axes.log if min(losses) > 0 else axes.linear)("training loss, nats", losses)
    return [Panel(title, axes.linear("epoch", [0, last]), y, tuple(series), width=300)]
