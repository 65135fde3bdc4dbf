"""Every figure of a report as SVG text."""

from __future__ import annotations

import gc
import importlib
import itertools
import pkgutil
import re
from collections.abc import Collection, Iterator
from types import ModuleType

import matplotlib.style
from matplotlib.figure import Figure

from sharedlabel.errors import printable
from sharedlabel.records import Results, shown
from sharedlabel.report import figures as _figures
from sharedlabel.report import standings, views
from sharedlabel.report._panels import subject
from sharedlabel.report._theme import STYLE, Palette, to_svg
from sharedlabel.report.views import View

_LETTERS = 48  # of a name in a figure
_STEM = 150  # letters of a file name
_KEPT = 50  # figures, each a few megabytes, until they are garbage: nobody looks for it while a run is published
_KINDS = sorted(
    (
        importlib.import_module(f"{_figures.__name__}.{module.name}")
        for module in pkgutil.iter_modules(_figures.__path__)
        if not module.name.startswith("_")
    ),
    key=lambda kind: (kind.ORDER, kind.__name__),
)


def _name(kind: ModuleType) -> str:
    return kind.__name__.rpartition(".")[2]


# Heading and caption of every kind of figure, in reading order.
CAPTIONS: dict[str, tuple[str, str]] = {_name(kind): (kind.HEADING, kind.CAPTION) for kind in _KINDS}


def figures(results: Results) -> dict[str, str]:
    """Draw the figures of a report.

    Args:
        results: what a grid found.

    Returns:
        SVG text by name, in reading order; a name starts with a key of `CAPTIONS`, then `-`, and is a valid file name.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    results = shown.shown(results, _label)
    drawn: dict[str, str] = {}
    with matplotlib.style.context(STYLE, after_reset=True):
        for kind, parts, about, figure in _drawn(results):
            name = _free(re.sub(r"[^a-z0-9_]+", "-", "-".join([kind, *parts]).lower()).strip("-")[:_STEM], drawn)
            drawn[name] = to_svg(figure, name, f"{CAPTIONS[kind][0]}: {about}")
            if not len(drawn) % _KEPT:
                gc.collect()
    return drawn


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
    for kind in _KINDS:
        for view in networks.values() if kind.PER == "network" else all_views:
            prefix = list(view.network) if len(networks) > 1 else []
            for names, about, given in _subjects(kind.PER, view):
                palette = pruners if kind.PER == "network" else aggregators
                figure = kind.draw(view, *given, palette)
                if figure is not None:
                    yield _name(kind), [*prefix, *names], about, figure


def _subjects(per: str, view: View) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield what figures are drawn for: parts of their name, what they are about, and the arguments of `draw`."""
    match per:
        case "network":
            yield [], subject(view, protocol=False), []
        case "view":
            yield [view.protocol], subject(view), []
        case "pruner":
            for pruner in view.pruners:
                yield [pruner, view.protocol], subject(view, pruner), [pruner]
        case "training":
            for training in standings.trainings(view):
                yield [training, view.protocol], subject(view), [training]
