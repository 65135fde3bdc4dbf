"""Every figure of a report as SVG text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import matplotlib.style
from matplotlib.figure import Figure

from sharedlabel.report import _curves, _points, views
from sharedlabel.report._panels import subject
from sharedlabel.report._theme import STYLE, Palette, to_svg
from sharedlabel.report.views import View
from sharedlabel.results import Results

CAPTIONS = {
    "cost": (
        "Relative information against cost",
        "Each point is one method at one ratio and n. The line is the Pareto front of the points shown: no cheaper point has "
        "more information. Dotted lines are compute budgets; rings mark the sweet spots, which were chosen on validation, so "
        "they may lie a little off the front.",
    ),
    "ratio": (
        "n-accuracy and relative information against compression",
        "Compression costs information, more images per object give it back. Bands are 95% intervals over images and seeds.",
    ),
    "efficiency": (
        "Efficiency against compression",
        "Bits per dense pass. It rewards ever smaller networks, so its maximum is no recommendation; rings show what the "
        "rules choose.",
    ),
    "calibration": (
        "Calibration",
        "Points above the diagonal are under-confident, below over-confident. One temperature per n is fitted on validation, "
        "the same way for every method.",
    ),
    "pruning": (
        "Pruning curves",
        "Accuracy of single images as weights are removed, before and after retraining.",
    ),
    "speedup": (
        "Measured against theoretical speedup",
        "Masked weights still cost time in dense kernels: points far below the diagonal save arithmetic only on hardware or "
        "kernels that use sparsity.",
    ),
}


def figures(results: Results) -> dict[str, str]:
    """Draw the figures of a report.

    Args:
        results: what a grid found.

    Returns:
        SVG text by name, in reading order; a name starts with a key of `CAPTIONS`, then `-`, and is a valid file name.

    Raises:
        StoreError: no cell has finished.
    """
    found: dict[str, str] = {}
    with matplotlib.style.context(STYLE, after_reset=True):  # type: ignore[arg-type]
        for kind, about, figure in _drawn(results):
            name = stem = f"{kind}-{re.sub(r'[^a-z0-9_]+', '-', about.lower()).strip('-')}"
            for i in range(2, len(found) + 3):
                if name not in found:
                    break
                name = f"{stem}-{i}"
            found[name] = to_svg(figure, name, f"{CAPTIONS[kind][0]}: {about}")
    return found


def _drawn(results: Results) -> Iterator[tuple[str, str, Figure]]:
    all_views = views.split(results)
    aggregators = Palette(s.aggregator for s in results.summaries)
    pruners = Palette(s.pruner for s in results.summaries)
    for view in all_views:
        yield "cost", subject(view), _points.against_cost(view, aggregators)
    draws: dict[str, Callable[[View, str, Palette], Figure | None]] = {
        "ratio": _curves.against_ratio,
        "efficiency": _curves.efficiency,
        "calibration": _points.calibration,
    }
    for kind, draw in draws.items():
        for view in all_views:
            for pruner in view.pruners:
                figure = draw(view, pruner, aggregators)
                if figure is not None:
                    yield kind, subject(view, pruner), figure
    for view in {view.network: view for view in reversed(all_views)}.values():
        yield "pruning", subject(view, protocol=False), _curves.pruning(view, pruners)
        figure = _points.speedup(view, pruners)
        if figure is not None:
            yield "speedup", subject(view, protocol=False), figure
