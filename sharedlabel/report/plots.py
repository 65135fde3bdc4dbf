"""Every figure of a report as SVG text, drawn by several processes where there are many."""

from __future__ import annotations

import functools
import gc
import importlib
import itertools
import pkgutil
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import ModuleType

import matplotlib.style

from sharedlabel.errors import printable
from sharedlabel.machine import crew
from sharedlabel.records import Results, shown
from sharedlabel.report import DRAW, standings, views
from sharedlabel.report import figures as _figures
from sharedlabel.report._panels import subject as described
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


def figures(results: Results, processes: int = 1) -> dict[str, str]:
    """Draw the figures of a report.

    Args:
        results: what a grid found.
        processes: that draw, if there is much to draw; 1 for none but this.

    Returns:
        SVG text by name, in reading order; a name starts with a key of `CAPTIONS`, then `-`, and is a valid file name.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    drawing = _Drawing(shown.shown(results, _label))
    subjects = drawing.subjects()
    drawn = zip(subjects, crew.ordered(drawing.draw, subjects, processes, DRAW), strict=True)
    return {subject.name: svg for subject, svg in drawn if svg is not None}


def work(connection: Connection) -> None:
    """Draw what comes, in a process that has imported all that draws before it was forked."""
    crew.do(connection)


def _label(text: str) -> str:
    """Write a name so that a figure has room for it, and that matplotlib, which hides `_names`, shows it."""
    return printable(" " * text.startswith("_") + text, _LETTERS)


@dataclass(frozen=True)
class _Subject:
    """What a figure may be drawn of.

    Attributes:
        name: of the figure.
        kind: module of its kind.
        view: number of the view that it is drawn of.
        about: what it is about, in words.
        given: further arguments of the kind's `draw`.
    """

    name: str
    kind: str
    view: int
    about: str
    given: tuple[str, ...]


class _Drawing:
    """Draws results; in another process, too, which divides them into views itself.

    Args:
        results: with names as figures show them.
    """

    def __init__(self, results: Results) -> None:
        self.results, self._drawn = results, 0

    def __reduce__(self) -> tuple[type[_Drawing], tuple[Results]]:
        return _Drawing, (self.results,)

    @functools.cached_property
    def _views(self) -> tuple[View, ...]:
        return views.split(self.results)

    @functools.cached_property
    def _aggregators(self) -> Palette:
        return Palette(s.aggregator for s in self.results.summaries)

    @functools.cached_property
    def _pruners(self) -> Palette:
        return Palette(pruner for view in self._views for pruner in view.pruners)

    def subjects(self) -> list[_Subject]:
        """Return all that there may be figures of, in reading order; each has a name of its own."""
        networks = {view.network: number for number, view in reversed(list(enumerate(self._views)))}
        subjects: dict[str, _Subject] = {}
        for kind in _KINDS:
            for view in networks.values() if kind.PER == "network" else range(len(self._views)):
                prefix = self._views[view].network if len(networks) > 1 else ()
                for names, about, given in _subjects(kind.PER, self._views[view]):
                    parts = "-".join([_name(kind), *prefix, *names])
                    name = _free(re.sub(r"[^a-z0-9_]+", "-", parts.lower()).strip("-")[:_STEM], subjects)
                    subjects[name] = _Subject(name, kind.__name__, view, about, tuple(given))
        return list(subjects.values())

    def draw(self, subject: _Subject) -> str | None:
        """Return a figure as SVG text; None where there is nothing to draw."""
        kind = importlib.import_module(subject.kind)
        palette = self._pruners if kind.PER == "network" else self._aggregators
        with matplotlib.style.context(STYLE, after_reset=True):
            figure = kind.draw(self._views[subject.view], *subject.given, palette)
            if figure is None:
                return None
            svg = to_svg(figure, subject.name, f"{CAPTIONS[_name(kind)][0]}: {subject.about}")
        self._drawn += 1
        if not self._drawn % _KEPT:
            gc.collect()
        return svg


def _free(stem: str, taken: Collection[str]) -> str:
    names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _subjects(per: str, view: View) -> Iterator[tuple[list[str], str, list[str]]]:
    """Yield what figures are drawn for: parts of their name, what they are about, and the arguments of `draw`."""
    match per:
        case "network":
            yield [], described(view, protocol=False), []
        case "view":
            yield [view.protocol], described(view), []
        case "pruner":
            for pruner in view.pruners:
                yield [pruner, view.protocol], described(view, pruner), [pruner]
        case "training":
            for training in standings.trainings(view):
                yield [training, view.protocol], described(view), [training]
