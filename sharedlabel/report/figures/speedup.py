"""The figure of measured against theoretical speedup."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sharedlabel.config.names import DENSE
from sharedlabel.records.measurements import Latency, quietest
from sharedlabel.report._panels import heading, log_axis, panel_ns, panels, subject
from sharedlabel.report._theme import MUTED, Mark, Palette
from sharedlabel.report.costs import conditions
from sharedlabel.report.views import View, usual

ORDER, PER = 80, "network"
HEADING = "Measured against theoretical speedup"
CAPTION = (
    "Masked weights still cost time in dense kernels: points far below the diagonal save arithmetic only on "
    "hardware or kernels that use sparsity. Each network took turns with the dense one; the first point of every "
    "line is the dense network."
)


def draw(view: View, palette: Palette) -> Figure | None:
    """Draw the networks' measured against their theoretical speedup, on a diagonal where they would agree.

    A row per device and mode, a panel per batch, a line per pruner; bars span the middle half of the measured times.
    """
    measured = quietest(usual(view.latencies))
    if not measured:
        return None
    rows = list(dict.fromkeys((record.device, record.mode) for record in measured))
    batches = panel_ns(sorted({record.batch for record in measured}))
    figure, axes = panels(len(rows), len(batches), height=2.9)
    busy = ", measured on a busy machine" if any(record.measured_contended for record in measured) else ""
    how = f"{conditions(measured)}{busy}, bars: middle half of the times"
    heading(figure, "Measured against theoretical speedup", f"{subject(view, protocol=False)}, {how}")
    reach = [1.0, *(value for record in measured for value in (record.theoretical_speedup, record.measured_speedup))]
    limits = min(reach) / 1.15, max(reach) * 1.15
    for line, (device, mode) in zip(axes, rows, strict=True):
        line[0].set_ylabel(f"{device}, {mode}\nmeasured speedup")
        for panel, batch in zip(line, batches, strict=True):
            own = [record for record in measured if (record.device, record.mode, record.batch) == (device, mode, batch)]
            panel.plot(limits, limits, color=MUTED, lw=0.8, ls=":", label="measured = theoretical")
            for pruner in view.pruners:
                _line(panel, [record for record in own if record.pruner in {pruner, DENSE}], pruner, palette[pruner])
            panel.set(xlim=limits, ylim=limits)
            for axis in "xy":
                log_axis(panel, axis)
            panel.set_title(f"batch {batch}")
    figure.supxlabel("theoretical speedup, dense / effective MACs (log scale)", fontsize=8.5)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=8.5)
    return figure


def _line(panel: Axes, records: Sequence[Latency], pruner: str, mark: Mark) -> None:
    ratios: dict[float, list[Latency]] = {}
    for record in records:
        ratios.setdefault(record.ratio, []).append(record)
    groups = [ratios[ratio] for ratio in sorted(ratios)]
    x = [statistics.fmean(record.theoretical_speedup for record in group) for group in groups]
    low, middle, high = zip(*map(speedups, groups), strict=True)
    panel.vlines(x, low, high, color=mark.color, lw=1, alpha=0.5)
    panel.plot(x, middle, ms=5, label=pruner, **mark.look)


def speedups(records: Sequence[Latency]) -> tuple[float, float, float]:
    """Return the speedups at the third quartile, the median and the first quartile of the time, medians over seeds."""
    low = statistics.median(record.measured_dense_ms / record.measured_high_ms for record in records)
    high = statistics.median(record.measured_dense_ms / record.measured_low_ms for record in records)
    return low, statistics.median(record.measured_speedup for record in records), high
