"""Relative information against the compression ratio."""

from __future__ import annotations

from sharedlabel.report.charts.figure import Figure
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.figures import _parts
from sharedlabel.report.views import View

SECTION, ORDER, PER = "compress", 20, "pruner"
HEADING = "Relative information against compression"
CAPTION = (
    "Compression costs information, more images per object give it back. Each panel has its own axis, stretched "
    "towards 1, where the differences matter; values above 0.999 sit at its upper end."
)


def draw(view: View, pruner: str, palette: Palette) -> Figure:
    """Draw RI against the ratio: a panel per n, a line per method."""
    return _parts.against_ratio(view, pruner, palette, "ri")
