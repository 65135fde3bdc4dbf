"""One look for every figure: colours, markers, and SVG that is small, safe to inline and the same on every run."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.backends.backend_svg import FigureCanvasSVG, RendererSVG
from matplotlib.figure import Figure

from sharedlabel.config.names import EXACT

INK, MUTED, GRID, PAPER = "#1f2328", "#59636e", "#d8dee4", "#ffffff"
# Okabe-Ito without black and yellow, then three of Paul Tol's muted set: told apart with every common colour blindness.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#882255", "#999933", "#332288")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
DASHES = ("-", (0, (4.0, 1.5)), (0, (1.0, 1.2)))
STYLE = {
    "axes.edgecolor": MUTED,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9,
    "figure.facecolor": PAPER,
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 3.5,
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True)
class Mark:
    """How one method is drawn."""

    color: str
    marker: str
    dash: str | tuple[int, tuple[float, ...]]

    @property
    def look(self) -> dict[str, Any]:
        """Options of a line of this mark."""
        return {"linestyle": self.dash, "marker": self.marker, "color": self.color, "mec": PAPER, "mew": 0.4}


class Palette:
    """The mark of every name, the same in all figures.

    Args:
        names: aggregators (or pruners); the exact posterior is drawn in ink.
    """

    def __init__(self, names: Iterable[str]) -> None:
        ordered = sorted(set(names) - {EXACT})
        self._marks = {name: _mark(i) for i, name in enumerate(ordered)}
        self._marks[EXACT] = Mark(INK, "*", DASHES[1])

    def __getitem__(self, name: str) -> Mark:
        """Return the mark of a name."""
        return self._marks[name]


def _mark(i: int) -> Mark:
    size = len(SERIES)
    return Mark(SERIES[i % size], MARKERS[i % size], DASHES[i // size % len(DASHES)])


class _Canvas(FigureCanvasSVG):
    """A canvas that measures texts by one renderer, which remembers them."""

    _RULER = RendererSVG(1, 1, io.StringIO())  # type: ignore[no-untyped-call]

    def get_renderer(self) -> RendererSVG:
        """Return what measures texts."""
        return self._RULER


def _lay_out(figure: Figure) -> None:
    """Lay a figure out as it will be when it is saved, which would draw all of it once more to do so."""
    engine = figure.get_layout_engine()
    if engine is not None:
        figure.set_dpi(_Canvas.fixed_dpi)
        _Canvas(figure)
        engine.execute(figure)
        figure.set_layout_engine(None)


def to_svg(figure: Figure, name: str, label: str) -> str:
    """Write a figure as SVG that needs nothing else and repeats no id of another figure.

    Args:
        figure: drawn figure.
        name: name of the figure, unique within a report: salts the ids.
        label: what a screen reader says.
    """
    buffer = io.StringIO()
    _lay_out(figure)
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    used = set(re.findall(r"#([^\")]+)[\")]", text))
    text = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", text)
    text = re.sub(r"<[^>]+>", lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), text)
    text = re.sub(r' transform="rotate\(-0[^"]*"', "", text)
    text = text.replace("'DejaVu Sans'", "system-ui, sans-serif")
    head = f'<svg role="img" aria-label="{html.escape(label)}" style="stroke-linejoin: round; stroke-linecap: butt"'
    return re.sub(r"\s*\n\s*", "\n", text.replace("<svg", head, 1)).strip() + "\n"
