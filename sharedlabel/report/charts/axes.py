"""Axes: where a value lies between both ends, and which values are named."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Scale: TypeAlias = Literal["linear", "log", "stretched", "signed"]
LINEAR = 0.01  # differences up to which a signed axis of them is linear, about
_NEAREST = 1e-3  # to 1, on a stretched axis
LAST = 1 - _NEAREST  # values beyond it are at the end of a stretched axis
_REACH, _EDGE = 0.05, 0.02  # decades of the distance to 1, at least: of intervals beyond values, and of room at an end
_MOST, _FEW = 8, 3  # named values of an axis, at most and at least
_APART = 0.08  # shares of an axis between named differences, at least; as in page.js
_STRETCHED = (-8, -3, -1, 0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999)
_SIGNED = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SCALES: Mapping[Scale, Callable[[float], float]] = {
    "linear": float,
    "log": math.log10,
    "stretched": lambda value: -math.log10(max(1 - value, _NEAREST / 2)),
    "signed": math.asinh,
}


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        label: what it shows.
        low: value at its beginning.
        high: value at its end; values beyond an end are drawn at it.
        ticks: values with what they are called.
        scale: `linear`; `log`; `stretched`, on which distances to 1 are logarithmic; or `signed`, which is linear
            around 0 and logarithmic in both directions from there.
        unit: value up to which a `signed` axis is linear, about.
    """

    label: str
    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    scale: Scale = "linear"
    unit: float = 1.0

    def at(self, value: float) -> float:
        """Return where a value lies, as a share of the axis.

        >>> Axis("n", 1, 100, (), "log").at(10)
        0.5
        """
        inside = min(max(value, self.low), self.high)
        place = _SCALES[self.scale]
        low, here, high = (place(one / self.unit) for one in (self.low, inside, self.high))
        return (here - low) / (high - low)


def powers(label: str, values: Sequence[float], suffix: str = "") -> Axis:
    """Return a logarithmic axis with the given ascending values as ticks, every second one if they are many."""
    every = math.ceil(len(values) / _MOST)
    ticks = [(value, f"{value:g}{suffix}" if place % every == 0 else "") for place, value in enumerate(values)]
    return Axis(label, values[0] / 1.2, values[-1] * 1.2, tuple(ticks), "log")


def log(label: str, values: Iterable[float]) -> Axis:
    """Return a logarithmic axis with ticks at 1, 2 and 5 times the powers of ten, or at fewer if those are many."""
    known = list(values)
    low, high = min(known) / 1.2, max(known) * 1.2
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1, 2, 5), (1, 3), (1,)):
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MOST:
            break
    return Axis(label, low, high, tuple((tick, f"{tick:g}") for tick in ticks), "log")


def linear(label: str, values: Iterable[float], *, zero: bool = False) -> Axis:
    """Return an axis whose ends are ticks; with `zero`, one of them is 0.

    >>> [name for _, name in linear("share", [0.31, 0.52]).ticks]
    ['0.3', '0.35', '0.4', '0.45', '0.5', '0.55']
    """
    known = [*values, *([0.0] if zero else [])]
    low, high = min(known), max(known)
    rough = (high - low or abs(high) or 1.0) / 5
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(times * size for times in (1, 2, 5, 10) if times * size >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    last = max(last, first + 1)
    ticks = [place * step for place in range(first, last + 1)]
    return Axis(label, ticks[0], ticks[-1], tuple((tick, f"{round(tick, 10) + 0.0:g}") for tick in ticks))


def share(label: str) -> Axis:
    """Return an axis from 0 to 1."""
    return linear(label, [0.0, 1.0])


def stretched(label: str, values: Iterable[float], ends: Iterable[float] = ()) -> Axis:
    """Return an axis that is stretched towards 1, where good methods differ; values above 0.999 are at its end.

    Args:
        label: what it shows.
        values: all that is drawn, each at most 1.
        ends: of their intervals; what lies further away than half the spread of the values is left out, and near 1
            than a quarter of the decades from there to 0.
    """
    drawn, spans = [1 - value for value in values], [1 - end for end in ends]
    nearest = max(min((gap for gap in [*drawn, *spans] if gap > 0), default=0.0), _NEAREST)
    places = [math.log10(max(gap, nearest)) for gap in drawn]
    reach = max((max(places) - min(places)) / 2, _REACH, _REACH - max(places) / 4)
    least, most = min(places) - reach, max(places) + reach
    places += [min(max(math.log10(max(gap, nearest)), least), most) for gap in spans]
    edge = max(0.06 * (max(places) - min(places)), _EDGE)
    floor = max(10 ** (min(places) - edge), _NEAREST)
    low, high = 1 - max(10 ** (max(places) + edge), 2 * _NEAREST), 1 - floor
    apart = math.log10((1 - low) / floor) / _MOST
    ticks: list[float] = []
    for tick in (tick for tick in reversed(_STRETCHED) if low <= tick <= high):
        if not ticks or math.log10((1 - tick) / (1 - ticks[-1])) >= apart:
            ticks.append(tick)
    if len(ticks) < _FEW:
        even = linear(label, [low, high]).ticks
        return Axis(label, low, high, tuple(tick for tick in even if low <= tick[0] <= high), "stretched")
    return Axis(label, low, high, tuple((tick, f"{tick:g}") for tick in ticks), "stretched")


def signed(label: str, values: Iterable[float]) -> Axis:
    """Return an axis of differences that shows small ones and large ones, of both signs."""
    known = [*values, -_SIGNED[0], _SIGNED[0]]
    low, high = min(known) * 1.1, max(known) * 1.1
    bare = Axis(label, low, high, (), "signed", LINEAR)
    kept = [0.0]
    for tick in (sign * tick for tick in reversed(_SIGNED) for sign in (1, -1)):
        if low <= tick <= high and all(abs(bare.at(tick) - bare.at(other)) >= _APART for other in kept):
            kept.append(tick)
    return dataclasses.replace(bare, ticks=tuple((tick, f"{tick:+g}" if tick else "0") for tick in sorted(kept)))


def names(labels: Sequence[str]) -> Axis:
    """Return an axis with a place for each name, the first on top."""
    ticks = tuple((-float(place), label) for place, label in enumerate(labels))
    return Axis("", 0.5 - len(labels), 0.5, ticks)
