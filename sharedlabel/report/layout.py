"""Which figures stand where on the page, and which it leaves to the files beside it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sharedlabel.report.plots import Drawn

SECTIONS = ("deploy", "compress", "method", "cost", "stop", "trust", "wrong", "how")  # of the page that hold figures
POINTS = 6_500  # of figures that a page draws before it leaves further pruners to the files beside it


@dataclass(frozen=True)
class Kind:
    """The figures of a kind.

    Attributes:
        heading: of all of them.
        caption: likewise.
        first: those that are seen at once.
        others: those that are opened.
        linked: those that lie beside the page.
    """

    heading: str
    caption: str
    first: Sequence[Drawn]
    others: Sequence[Drawn]
    linked: Sequence[Drawn]


def by_section(figures: Sequence[Drawn], views: int) -> dict[str, Any]:
    """Arrange figures by section and by whether they are `open` or `aside`; in the first section also by view.

    Args:
        figures: all of a report, in reading order.
        views: how many parts the results have.
    """
    linked = _linked(figures)
    every = {name: _arranged([one for one in figures if name == one.kind.SECTION], linked) for name in SECTIONS}
    first = [one for one in figures if SECTIONS[0] == one.kind.SECTION]
    by_view = [_arranged([one for one in first if one.view == view], linked) for view in range(views)]
    return every | {SECTIONS[0]: by_view}


def _linked(figures: Sequence[Drawn]) -> set[str]:
    """Name the figures that the page has no room for: those of further pruners, the last ones first."""
    room, linked = POINTS, set[str]()
    seen = {name for kind in dict.fromkeys(one.kind for one in figures) for name in _first(kind, figures)}
    for one in sorted(figures, key=lambda one: one.name not in seen):
        room -= sum(len(series.points) for panel in one.figure.panels for series in panel.series)
        if room < 0 and one.name not in seen:
            linked.add(one.name)
    return linked


def _first(kind: ModuleType, figures: Sequence[Drawn]) -> set[str]:
    """Name the figures of a kind that are seen at once: of those of several pruners the first of each view."""
    own = [one for one in figures if one.kind is kind]
    return {one.name for one in ({one.view: one for one in reversed(own)}.values() if kind.PER == "pruner" else own)}


def _arranged(figures: Sequence[Drawn], linked: Collection[str]) -> dict[str, list[Kind]]:
    """Arrange figures by kind."""
    arranged: dict[str, list[Kind]] = {"open": [], "aside": []}
    for kind in dict.fromkeys(one.kind for one in figures):
        own, seen = [one for one in figures if one.kind is kind], _first(kind, figures)
        parts = (
            [one for one in own if one.name in seen],
            [one for one in own if one.name not in {*seen, *linked}],
            [one for one in own if one.name in linked],
        )
        where = "aside" if getattr(kind, "ASIDE", False) else "open"
        arranged[where].append(Kind(kind.HEADING, kind.CAPTION, *parts))
    return arranged
