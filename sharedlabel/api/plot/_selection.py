"""What a plot shows, from what its arguments say."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, ParamSpec
from weakref import WeakKeyDictionary

from matplotlib.axes import Axes

from sharedlabel.api.plot._look import Palette
from sharedlabel.config.names import DENSE
from sharedlabel.errors import DataError, nearest, printable
from sharedlabel.records import Summary
from sharedlabel.records import shown as inert
from sharedlabel.report import views
from sharedlabel.report.views import View, method

_P = ParamSpec("_P")
_LETTERS = 48  # of a name
WHERE = ("data", "backbone", "protocol")
# What plots of the same results share; it is gone with them.
_VIEWS: WeakKeyDictionary[Any, tuple[tuple[View, ...], Palette]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Selection:
    """What a plot shows.

    Attributes:
        view: one data set, backbone and protocol.
        pruner: the compression method.
        palette: the marks of aggregators, the same in all plots of these results.
    """

    view: View
    pruner: str
    palette: Palette

    def tests(self, aggregators: Collection[str] | None) -> dict[str, list[Summary]]:
        """Return the summaries on test by method, of all aggregators or of some."""
        aggregators = listed(aggregators)
        known = {summary.aggregator for summary in self.view.summaries}
        for name in aggregators or ():
            check_name("aggregator", name, known)
        lines: dict[str, list[Summary]] = {}
        for summary in self.view.tests(self.pruner):
            if aggregators is None or summary.aggregator in aggregators:
                lines.setdefault(method(summary), []).append(summary)
        return dict(sorted(lines.items()))


def takes(draw: Callable[..., Axes]) -> list[str]:
    """Return the names of all that a plot takes beside the results."""
    parameters = inspect.signature(draw).parameters.values()
    return [one.name for one in parameters if one.kind is one.KEYWORD_ONLY] + list(WHERE)


def strict(draw: Callable[_P, Axes]) -> Callable[_P, Axes]:
    """Let a plot refuse arguments that it does not take."""
    taken = takes(draw)

    @functools.wraps(draw)
    def checked(*args: _P.args, **options: _P.kwargs) -> Axes:
        for name in options.keys() - {"results"}:
            if name not in taken:
                raise DataError(f"{draw.__name__}: expected one of its arguments, got {name!r}; {nearest(name, taken)}")
        return draw(*args, **options)

    return checked


def select(results: Any, pruner: str | None, where: dict[str, str]) -> Selection:
    """Choose what a plot shows from what its arguments say."""
    records = getattr(results, "records", None)
    if records is None:
        raise DataError(
            f"expected what sharedlabel.run or load_results returns, got a {type(results).__name__}; load the results"
        )
    if results not in _VIEWS:
        shown = inert.shown(records, lambda text: printable(text, _LETTERS))
        _VIEWS[results] = views.split(shown), Palette(summary.aggregator for summary in shown.summaries)
    left, palette = _VIEWS[results]
    for name, value in where.items():
        check_name(name, value, [getattr(view, name) for view in left])
        left = tuple(view for view in left if getattr(view, name) == value)
    if not left:
        raise DataError("expected results with a finished cell, got none; see their table `failures`")
    view, spot = left[0], views.headline(left[0])
    usual = spot.pruner if spot is not None and spot.pruner in view.pruners else view.pruners[0]
    if pruner is not None:
        check_name("pruner", pruner, {*view.pruners, DENSE})
    return Selection(view, pruner or usual, palette)


def known_number(name: str, asked: Any, known: Iterable[Any], usual: Any) -> Any:
    """Return a number that was asked for, or the usual one; refuse one that there is not."""
    there = sorted(known)
    if asked is None:
        return usual if usual in there else there[-1] if there else usual
    if asked not in there:
        available = ", ".join(f"{each:g}" for each in there)
        raise DataError(f"{name}: expected one of the results, got {asked}; available: {available}")
    return asked


def listed(names: Collection[str] | None) -> Collection[str] | None:
    """Return names as a list, where one alone may be given, too."""
    return [names] if isinstance(names, str) else names


def check_name(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that there is not."""
    if name not in known:
        raise DataError(f"{what}: expected one of the results, got {name!r}; {nearest(name, known)}")
