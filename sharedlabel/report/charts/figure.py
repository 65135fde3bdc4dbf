"""What a figure holds, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sharedlabel.report.charts.axes import Axis
from sharedlabel.report.charts.marks import Mark


@dataclass(frozen=True)
class Point:
    """A point of a series.

    Attributes:
        x: its place.
        y: likewise.
        said: the point in words.
        low: lower end of its interval; None without one.
        high: upper end.
        size: by how much its shape is larger than usual.
        hollow: drawn as an outline.
    """

    x: float
    y: float
    said: str
    low: float | None = None
    high: float | None = None
    size: float = 0.0
    hollow: bool = False


@dataclass(frozen=True)
class Series:
    """Points that belong together.

    Attributes:
        name: what it is called; series of one name are shown and hidden together. Empty for what always shows.
        mark: how it is drawn.
        points: in the order of the line.
        line: what joins them.
        spread: how their intervals are drawn.
        dots: whether the points are drawn.
        dashed: whether the line is, whatever the mark says.
    """

    name: str
    mark: Mark
    points: tuple[Point, ...]
    line: Literal["", "straight", "steps"] = "straight"
    spread: Literal["", "band", "bars", "sideways"] = ""
    dots: bool = True
    dashed: bool = False


@dataclass(frozen=True)
class Guide:
    """A thin line behind the series, from one place to another, and a word at its end."""

    start: tuple[float, float]
    end: tuple[float, float]
    label: str = ""


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes:
        title: above it; empty for none.
        x: axis to the right.
        y: axis upwards.
        series: in the order in which they are drawn.
        guides: behind them.
        width: in units of which letters are 11 high.
        height: likewise.
    """

    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    guides: tuple[Guide, ...] = ()
    width: int = 250
    height: int = 190


@dataclass(frozen=True)
class Figure:
    """Panels beside each other.

    Attributes:
        about: what they show, with the place they were measured at.
        panels: at least one.
        legend: name and mark of each series that has a name.
        notes: what other marks mean.
        baseline: what a script needs to draw differences to another method, as JSON; empty where there is none.
    """

    about: str
    panels: tuple[Panel, ...]
    legend: tuple[tuple[str, Mark], ...] = ()
    notes: tuple[str, ...] = ()
    baseline: str = ""
