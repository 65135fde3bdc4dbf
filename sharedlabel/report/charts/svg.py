"""Figures as SVG: panels for a page, or a file that needs nothing else."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from sharedlabel.report.charts.figure import Figure, Guide, Panel, Point, Series
from sharedlabel.report.charts.marks import Mark

STYLE = Path(__file__).with_name("charts.css").read_text(encoding="utf-8")
_LETTER = 5.9  # width of a letter, about
_WIDE, _THIN = 10.0, 3.9  # of m and w, of i and l; others are as wide as `_OTHER` at most
_OTHER = 6.7
_LETTERS = 30  # of a name at an axis
_LINE = 15
_COLUMNS = 4  # panels of a file beside each other
_GAP = 16


class _Box:
    """Where a panel draws: values to coordinates."""

    def __init__(self, panel: Panel) -> None:
        self.panel = panel
        widest = max((_width(_cut(name)) for _, name in panel.y.ticks), default=0)
        self.left = 7 + widest + (_LINE if panel.y.label else 0)
        self.right, self.top = panel.width - 10.0, 24.0 if panel.title else 10.0
        self.bottom = panel.height - (34.0 if panel.x.label else 20.0)

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * self.panel.x.at(value)

    def y(self, value: float) -> float:
        return self.bottom - (self.bottom - self.top) * self.panel.y.at(value)

    def at(self, x: float, y: float) -> str:
        return f"{_number(self.x(x))} {_number(self.y(y))}"


def panel_svg(panel: Panel, where: str = "") -> str:
    """Return one panel as an SVG element.

    Args:
        panel: what to draw.
        where: further attributes, for a panel within a file.
    """
    box = _Box(panel)
    parts = [*_frame(box), *(_guide(guide, box) for guide in panel.guides), *(_series(s, box) for s in panel.series)]
    role = f" {where}" if where else f' role="img" tabindex="0" aria-label="{escape(said(panel))}"'
    sides = {"x0": box.left, "x1": box.right, "y0": box.top, "y1": box.bottom}
    inner = "".join(f' data-{name}="{_number(value)}"' for name, value in sides.items())
    return f'<svg class="panel" viewBox="0 0 {panel.width} {panel.height}"{role}{inner}>' + "".join(parts) + "</svg>"


def said(panel: Panel) -> str:
    """Say what is seen: the axes, and where each series begins and ends.

    Args:
        panel: with at least one series.
    """
    axes = " against ".join(label for label in (panel.y.label, panel.x.label) if label)
    lines = [_said(series) for series in panel.series if series.points and series.name]
    return ". ".join(part for part in (panel.title, axes, "; ".join(lines)) if part) + "."


def _said(series: Series) -> str:
    first, last = series.points[0], series.points[-1]
    return first.said if first is last else f"{first.said} to {last.said.removeprefix(series.name + ', ')}"


def file_svg(figure: Figure, heading: str) -> str:
    """Return a figure as an SVG file, its panels in rows, with a heading and a legend.

    Args:
        figure: what to draw.
        heading: in its first line.
    """
    rows = _rows(figure.panels)
    width = max(sum(panel.width + _GAP for panel in row) for row in rows)
    parts = [f'<text class="title" x="8" y="18">{escape(heading)}</text>']
    lines = textwrap.wrap(figure.about, round(width / _LETTER))
    parts += [f'<text class="tick" x="8" y="{34 + 14 * i}">{escape(line)}</text>' for i, line in enumerate(lines)]
    top = 34.0 + 14 * len(lines)
    for row in rows:
        left = 0
        for panel in row:
            place = f'x="{left}" y="{top:g}" width="{panel.width}" height="{panel.height}"'
            parts.append(panel_svg(panel, place))
            left += panel.width + _GAP
        top += max(panel.height for panel in row) + 8
    legend, height = _legend(figure, top, width)
    label = escape(f"{heading}: {figure.about}")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        f'role="img" aria-label="{label}"><style>{STYLE}</style>'
        f'<rect class="paper" width="100%" height="100%"/>{"".join([*parts, *legend])}</svg>\n'
    )


def _rows(panels: Sequence[Panel]) -> list[tuple[Panel, ...]]:
    return [tuple(panels[start : start + _COLUMNS]) for start in range(0, len(panels), _COLUMNS)]


def _legend(figure: Figure, top: float, width: float) -> tuple[list[str], float]:
    """Return the entries of a legend, in as many lines as they need, and where they end."""
    parts, left, line = [], 8.0, top + 10
    entries: list[tuple[str, Mark | None]] = [*figure.legend, *((note, None) for note in figure.notes)]
    for name, mark in entries:
        needed = 24 + _LETTER * len(name)
        if left + needed > width and left > 8:
            left, line = 8.0, line + _LINE
        if mark is not None:
            parts.append(
                f'<g style="--c:{mark.color}"><path class="dot" d="M{left + 4:g} {line - 4:g}{mark.shape}"/></g>'
            )
        parts.append(f'<text class="tick" x="{left + 12:g}" y="{line:g}">{escape(name)}</text>')
        left += needed
    return parts, line + 10


def swatch(mark: Mark) -> str:
    """Return a mark as a small picture beside a name."""
    dash = f' stroke-dasharray="{mark.dash}"' if mark.dash else ""
    return (
        f'<svg class="swatch" viewBox="0 0 22 10" aria-hidden="true" style="--c:{mark.color}">'
        f'<path class="line" d="M0 5H22"{dash}/><path class="dot" d="M11 5{mark.shape}"/></svg>'
    )


def _frame(box: _Box) -> Iterator[str]:
    """Yield title, grid, and the names of values and axes."""
    panel = box.panel
    if panel.title:
        yield _text(panel.title, "title", box.left, 14, "start")
    across = "".join(f"M{_number(box.left)} {_number(box.y(v))}H{_number(box.right)}" for v, _ in panel.y.ticks)
    down = "".join(f"M{_number(box.x(v))} {_number(box.top)}V{_number(box.bottom)}" for v, _ in panel.x.ticks)
    yield f'<path class="grid across" d="{across}"/><path class="grid" d="{down}"/>'
    yield from (_text(name, "tick", box.x(value), box.bottom + 13) for value, name in panel.x.ticks if name)
    named = (_text(_cut(name), "tick", box.left - 5, box.y(value) + 3.5, "end") for value, name in panel.y.ticks)
    yield f'<g class="ticks">{"".join(named)}</g>'
    if panel.x.label:
        yield _text(panel.x.label, "label", (box.left + box.right) / 2, panel.height - 5)
    if panel.y.label:
        height = _number((box.top + box.bottom) / 2)
        yield f'<g transform="translate(11 {height}) rotate(-90)">{_text(panel.y.label, "label", 0, 0)}</g>'


def _cut(name: str) -> str:
    """Shorten a name that an axis has no room for.

    >>> _cut("a" * 40)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaa...'
    """
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS - 3]}..."


def _width(name: str) -> float:
    """Return how wide a name at an axis is, at most.

    >>> _width("il"), _width("mm"), _width("a")
    (7.8, 20.0, 6.7)
    """
    return sum(_WIDE if letter in "mwMW@%" else _THIN if letter in "ijltfI.,: " else _OTHER for letter in name)


def _text(text: str, style: str, x: float, y: float, anchor: str = "middle") -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" text-anchor="{anchor}"'
    return f'<text class="{style}" {place}>{escape(text)}</text>'


def _guide(guide: Guide, box: _Box) -> str:
    line = f'<path class="guide" d="M{box.at(*guide.start)}L{box.at(*guide.end)}"/>'
    if not guide.label:
        return line
    return line + _text(guide.label, "tick", box.x(guide.end[0]) + 3, box.y(guide.end[1]) + 10, "start")


def _series(series: Series, box: _Box) -> str:
    dash = "4 2" if series.dashed else series.mark.dash
    parts = [_spread(series, box)]
    if series.line and len(series.points) > 1:
        parts.append(
            f'<path class="line" d="{_line(series, box)}"' + (f' stroke-dasharray="{dash}"' if dash else "") + "/>"
        )
    parts += [_dot(point, series.mark, box) for point in series.points] if series.dots else []
    name = f' data-m="{escape(series.name)}"' if series.name else ""
    return f'<g class="s"{name} style="--c:{series.mark.color}">{"".join(parts)}</g>'


def _line(series: Series, box: _Box) -> str:
    first, *others = series.points
    path = "M" + box.at(first.x, first.y)
    for point in others:
        if series.line == "steps":
            path += f"H{_number(box.x(point.x))}V{_number(box.y(point.y))}"
        else:
            path += "L" + box.at(point.x, point.y)
    return path


def _spread(series: Series, box: _Box) -> str:
    known = [(p, p.low, p.high) for p in series.points if p.low is not None and p.high is not None]
    if not series.spread or not known:
        return ""
    if series.spread == "band":
        upper = "L".join(box.at(point.x, high) for point, _, high in known)
        lower = "L".join(box.at(point.x, low) for point, low, _ in reversed(known))
        return f'<path class="band" d="M{upper}L{lower}Z"/>'
    if series.spread == "bars":
        bars = (f"M{box.at(p.x, low)}V{_number(box.y(high))}" for p, low, high in known)
    else:
        bars = (f"M{box.at(low, p.y)}H{_number(box.x(high))}" for p, low, high in known)
    return f'<path class="bars" d="{"".join(bars)}"/>'


def _dot(point: Point, mark: Mark, box: _Box) -> str:
    style = " hollow" if point.hollow else ""
    size = "" if not point.size else f' style="--w:{point.size:g}"'
    place = f"M{box.at(point.x, point.y)}{mark.shape}"
    return f'<path class="dot{style}"{size} d="{place}"><title>{escape(point.said)}</title></path>'


def _number(value: float) -> str:
    """Write a coordinate.

    >>> _number(12.0), _number(3.14159)
    ('12', '3.1')
    """
    return f"{value:.1f}".removesuffix(".0")
