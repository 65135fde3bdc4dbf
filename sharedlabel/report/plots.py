"""Every figure of a report."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType

from sharedlabel.records import Results, shown
from sharedlabel.report import figures as _figures
from sharedlabel.report import standings, views
from sharedlabel.report.charts.figure import Figure
from sharedlabel.report.charts.marks import Palette
from sharedlabel.report.charts.svg import file_svg
from sharedlabel.report.views import View

_STEM = 150  # letters of a file name
_KINDS = sorted(
    (
        importlib.import_module(f"{_figures.__name__}.{module.name}")
        for module in pkgutil.iter_modules(_figures.__path__)
        if not module.name.startswith("_")
    ),
    key=lambda kind: (kind.ORDER, kind.__name__),
)


@dataclass(frozen=True)
class Drawn:
    """A figure and where it belongs.

    Attributes:
        name: of the figure and its file: a valid file name that starts with its kind and `-`.
        kind: the file in `figures/` that has drawn it.
        view: number of the view that it is drawn of.
        of: what it is drawn for within the view, such as a pruner; empty for the view as a whole.
        figure: what was drawn.
    """

    name: str
    kind: ModuleType
    view: int
    of: str
    figure: Figure

    @property
    def svg(self) -> str:
        """The figure as a file."""
        return file_svg(self.figure, self.kind.HEADING)


def figures(results: Results) -> dict[str, str]:
    """Draw the figures of a report.

    Args:
        results: what a grid found.

    Returns:
        SVG text by name, in reading order.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    return files(drawn(results))


def files(figures: Iterable[Drawn]) -> dict[str, str]:
    """Return figures as SVG text by name."""
    return {one.name: one.svg for one in figures}


def drawn(results: Results) -> list[Drawn]:
    """Draw the figures of a report, in reading order.

    Args:
        results: what a grid found.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    results = shown.shown(results)
    parts = views.split(results)
    networks = {view.network: number for number, view in reversed(list(enumerate(parts)))}
    aggregators = Palette(sorted({s.aggregator for s in results.summaries}))
    pruners = Palette(sorted({pruner for view in parts for pruner in view.pruners}))
    made: dict[str, Drawn] = {}
    for kind in _KINDS:
        per_network = kind.PER == "network"
        for number in networks.values() if per_network else range(len(parts)):
            view = parts[number]
            for own, given in _subjects(kind.PER, view):
                figure = kind.draw(view, *given, pruners if per_network else aggregators)
                if figure is not None:
                    prefix = view.network if len(networks) > 1 else ()
                    name = _free(_stem([_name(kind), *prefix, *own]), made)
                    made[name] = Drawn(name, kind, number, "".join(given), figure)
    return list(made.values())


def _name(kind: ModuleType) -> str:
    return kind.__name__.rpartition(".")[2]


def _stem(parts: Iterable[str]) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", "-".join(parts).lower()).strip("-")[:_STEM]


def _free(stem: str, taken: Collection[str]) -> str:
    names = itertools.chain([stem], (f"{stem}-{i}" for i in itertools.count(2)))
    return next(name for name in names if name not in taken)


def _subjects(per: str, view: View) -> Iterator[tuple[list[str], list[str]]]:
    """Yield parts of a figure's name and further arguments of its `draw`, for the headline's pruner first."""
    match per:
        case "network":
            yield [], []
        case "view":
            yield [view.protocol], []
        case "pruner":
            spot = views.headline(view)
            first = spot.pruner if spot is not None else ""
            for pruner in sorted(view.pruners, key=lambda pruner: pruner != first):
                yield [pruner, view.protocol], [pruner]
        case "training":
            for training in standings.trainings(view):
                yield [training, view.protocol], [training]
