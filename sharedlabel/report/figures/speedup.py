"""Measured against theoretical speedup."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from sharedlabel.config.names import DENSE
from sharedlabel.records.measurements import Latency, quietest
from sharedlabel.report.charts import axes
from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.costs import conditions
from sharedlabel.report.figures._parts import panel_ns, subject
from sharedlabel.report.views import View, usual

SECTION, ORDER, PER = "cost", 45, "network"
HEADING = "Measured against theoretical speedup"
CAPTION = (
    "Masked weights still cost time in dense kernels: points far below the dotted diagonal save arithmetic only on "
    "hardware or kernels that use sparsity. Each network took turns with the dense one; the first point of every "
    "line is the dense network."
)


def draw(view: View, palette: Palette) -> Figure | None:
    """Draw the networks' measured against their theoretical speedup, on a diagonal where they would agree.

    A panel per device, mode and batch, a line per pruner; bars span the middle half of the measured times.
    """
    measured = quietest(usual(view.latencies))
    if not measured:
        return None
    places = list(dict.fromkeys((record.device, record.mode) for record in measured))
    batches = panel_ns(sorted({record.batch for record in measured}))
    panels = []
    for device, mode in places:
        for batch in batches:
            own = [record for record in measured if (record.device, record.mode, record.batch) == (device, mode, batch)]
            series = tuple(
                Series(pruner, palette[pruner], tuple(_points(own, pruner)), spread="bars") for pruner in view.pruners
            )
            reach = [1.0, *(end for s in series for p in s.points for end in (p.x, p.low or p.y, p.high or p.y))]
            x, y = axes.log("theoretical speedup", reach), axes.log("measured speedup", reach)
            where = f"batch {batch}" if len(places) == 1 else f"batch {batch}, {device}, {mode}"
            panels.append(Panel(where, x, y, series, (Guide((x.low, x.low), (x.high, x.high)),)))
    busy = ", measured on a busy machine" if any(record.measured_contended for record in measured) else ""
    one = f"{places[0][0]}, {places[0][1]}, " if len(places) == 1 else ""
    about = f"{subject(view, protocol=False)}, {one}{conditions(measured)}{busy}, bars: middle half of the times"
    return Figure(about, tuple(panels), tuple((pruner, palette[pruner]) for pruner in view.pruners))


def _points(records: Sequence[Latency], pruner: str) -> list[Point]:
    ratios: dict[float, list[Latency]] = {}
    for record in records:
        if record.pruner in {pruner, DENSE}:
            ratios.setdefault(record.ratio, []).append(record)
    points = []
    for ratio in sorted(ratios):
        x = statistics.fmean(record.theoretical_speedup for record in ratios[ratio])
        low, middle, high = speedups(ratios[ratio])
        said = f"{pruner}, {ratio:g}x: {middle:.2f} times as fast, {x:.2f} in theory"
        points.append(Point(x, middle, said, low, high))
    return points


def speedups(records: Sequence[Latency]) -> tuple[float, float, float]:
    """Return the speedups at the third quartile, the median and the first quartile of the time, medians over seeds."""
    low = statistics.median(record.measured_dense_ms / record.measured_high_ms for record in records)
    high = statistics.median(record.measured_dense_ms / record.measured_low_ms for record in records)
    return low, statistics.median(record.measured_speedup for record in records), high
