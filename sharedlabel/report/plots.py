"""Every figure of a report as SVG text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Collection, Iterator

import matplotlib.style
from matplotlib.figure import Figure

from sharedlabel import inert
from sharedlabel.errors import printable
from sharedlabel.records import Results
from sharedlabel.report import _adaptive, _curves, _points, _ranking, _speedup, standings, views
from sharedlabel.report._panels import subject
from sharedlabel.report._theme import STYLE, Palette, to_svg
from sharedlabel.report.views import View

_LETTERS = 48  # of a name in a figure
_STEM = 150  # letters of a file name
CAPTIONS = {
    "cost": (
        "Relative information against cost",
        "Each point is one method at one ratio and n. The line is the Pareto front of the points shown: no cheaper "
        "point has more information. Dotted lines are compute budgets; rings mark the sweet spots, which were chosen "
        "on validation, so they may lie a little off the front.",
    ),
    "ratio": (
        "n-accuracy and relative information against compression",
        "Compression costs information, more images per object give it back. Bands are 95% intervals over images and "
        "seeds. The y axes are stretched towards 1, where the differences matter; values above 0.999 sit at the "
        "upper edge.",
    ),
    "standing": (
        "Ranks of the aggregators",
        "Means over all compressed networks, the scores of each tuple averaged first, so that differences stay paired. "
        "A bar joins neighbours no two of which are shown to differ, adjusted for all pairs, n and metrics. The "
        "numbers are rank intervals: from 1 + methods shown to be better to all methods less those shown to be worse.",
    ),
    "stopping": (
        "Adaptive against fixed n",
        "Adaptive n looks at further images only while the answer is not sure, by thresholds that were fitted on "
        "validation, for the method that is best there. Right: how often a decision that reached the threshold is "
        "wrong, against the error that it was fitted for; what is below the lower edge sits on it.",
    ),
    "efficiency": (
        "Efficiency against compression",
        "Bits per dense pass. It rewards ever smaller networks, so its maximum is no recommendation; rings show what "
        "the rules choose.",
    ),
    "calibration": (
        "Calibration",
        "Points above the diagonal are under-confident, below over-confident. One temperature per n is fitted on "
        "validation, the same way for every method.",
    ),
    "pruning": (
        "Pruning curves",
        "Accuracy of single images as weights are removed, before and after retraining.",
    ),
    "speedup": (
        "Measured against theoretical speedup",
        "Masked weights still cost time in dense kernels: points far below the diagonal save arithmetic only on "
        "hardware or kernels that use sparsity. Each network took turns with the dense one; the first point of every "
        "line is the dense network.",
    ),
}


def figures(results: Results) -> dict[str, str]:
    """Draw the figures of a report.

    Args:
        results: what a grid found.

    Returns:
        SVG text by name, in reading order; a name starts with a key of `CAPTIONS`, then `-`, and is a valid file name.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    results = inert.shown(results, _label)
    found: dict[str, str] = {}
    with matplotlib.style.context(STYLE, after_reset=True):
        for kind, parts, about, figure in _drawn(results):
            name = _free(re.sub(r"[^a-z0-9_]+", "-", "-".join([kind, *parts]).lower()).strip("-")[:_STEM], found)
            found[name] = to_svg(figure, name, f"{CAPTIONS[kind][0]}: {about}")
    return found


def _label(text: str) -> str:
    """Write a name so that a figure has room for it, and that matplotlib, which hides `_names`, shows it."""
    return printable(" " * text.startswith("_") + text, _LETTERS)


def _free(stem: str, taken: Collection[str]) -> str:
    names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _drawn(results: Results) -> Iterator[tuple[str, list[str], str, Figure]]:
    all_views = views.split(results)
    networks = {view.network: view for view in reversed(all_views)}
    aggregators = Palette(s.aggregator for s in results.summaries)
    pruners = Palette(pruner for view in all_views for pruner in view.pruners)

    def prefix(view: View) -> list[str]:
        return list(view.network) if len(networks) > 1 else []

    for view in all_views:
        yield "cost", [*prefix(view), view.protocol], subject(view), _points.against_cost(view, aggregators)
    for (kind, draw), view in itertools.product(_PER_PRUNER.items(), all_views):
        for pruner in view.pruners:
            figure = draw(view, pruner, aggregators)
            if figure is not None:
                yield kind, [*prefix(view), pruner, view.protocol], subject(view, pruner), figure
    for view in all_views:
        for training in standings.trainings(view):
            figure = _ranking.ranks(view, training, aggregators)
            if figure is not None:
                yield "standing", [*prefix(view), training, view.protocol], subject(view), figure
    for (kind, plot), view in itertools.product(_PER_NETWORK.items(), networks.values()):
        figure = plot(view, pruners)
        if figure is not None:
            yield kind, prefix(view), subject(view, protocol=False), figure


_PER_PRUNER: dict[str, Callable[[View, str, Palette], Figure | None]] = {
    "ratio": _curves.against_ratio,
    "stopping": _adaptive.against_instances,
    "efficiency": _curves.efficiency,
    "calibration": _points.calibration,
}
_PER_NETWORK: dict[str, Callable[[View, Palette], Figure | None]] = {
    "pruning": _curves.pruning,
    "speedup": _speedup.speedup,
}
