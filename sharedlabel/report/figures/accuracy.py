"""N-accuracy against the compression ratio."""

from __future__ import annotations

from sharedlabel.report.charts.figure import Figure
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures import _parts
from sharedlabel.report.views import View

SECTION, ORDER, PER, ASIDE = "compress", 22, "pruner", True
HEADING = "n-accuracy against compression"
CAPTION = "The share of objects whose label is right after n images, on axes stretched towards 1."


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw n-accuracy against the ratio: a panel per n, a line per method."""
    return _parts.against_ratio(view, pruner, palette, "n_accuracy")
