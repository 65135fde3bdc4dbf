"""N-accuracy and RI against the compression ratio."""

from __future__ import annotations

from matplotlib.figure import Figure

from sharedlabel.report._panels import (
    heading,
    panel_ns,
    panels,
    stretched_axis,
    subject,
)
from sharedlabel.report._theme import Palette
from sharedlabel.report.figures._lines import draw_lines, label_last
from sharedlabel.report.views import View

ORDER, PER = 20, "pruner"
HEADING = "n-accuracy and relative information against compression"
CAPTION = (
    "Compression costs information, more images per object give it back. Bands are 95% intervals over images and "
    "seeds. The y axes are stretched towards 1, where the differences matter; values above 0.999 sit at the upper "
    "edge."
)


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw n-accuracy and RI against the ratio: a row each, a panel per n, a line per aggregator."""
    ns = panel_ns(view.ns)
    figure, axes = panels(2, len(ns), height=2.2, sharey="row")
    heading(figure, "n-accuracy and RI against compression", subject(view, pruner) + ", test, bands: 95% intervals")
    metrics = (("n_accuracy", "n-accuracy, stretched towards 1"), ("ri", "RI, stretched towards 1"))
    for line, (metric, label) in zip(axes, metrics, strict=True):
        line[0].set_ylabel(label)
        drawn = [s for n in ns for s in view.tests(pruner, n)]
        stretched_axis(line[0], [getattr(s, metric + end) for s in drawn for end in ("", "_low", "_high")])
        for panel, n in zip(line, ns, strict=True):
            draw_lines(panel, view, pruner, n, metric, palette, band=True)
            panel.set_title(f"n = {n}")
    figure.supxlabel("compression ratio, dense / compressed parameters (log scale)", fontsize=8.5)
    label_last(axes, view, pruner, ns[-1], ("n_accuracy", "ri"), palette)
    return figure
