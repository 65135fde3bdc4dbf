"""How much two options differ: by a paired comparison of the run where there is one, else from their own intervals.

A verdict and the interval beside it are always of the same correction, and both say which.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sharedlabel.choose.candidates import Option
from sharedlabel.records import MIN_SEEDS, OPPOSITE, Comparison, Identity, Verdict

Metric = Literal["n_accuracy", "ri"]
Ends: TypeAlias = tuple[float, float, float]  # estimate, lower and upper end of its interval
ALONE = "one comparison, not adjusted"


@dataclass(frozen=True)
class Gap:
    """One option minus another, on test.

    Attributes:
        difference: positive when the first is better.
        low: lower end of the interval that the verdict is read off.
        high: upper end.
        paired: from the differences of each tuple's scores. Otherwise the two intervals are combined as if they were
            independent, which is too wide as a rule, since both are about the same images.
        verdict: of the first option. Paired: that of the run's comparison; else `better` or `worse` where the interval
            excludes 0 and `undecided` where it does not, `no verdict` with fewer than five seeds.
        correction: what interval and verdict are adjusted for.
    """

    difference: float
    low: float
    high: float
    paired: bool
    verdict: Verdict
    correction: str


@dataclass(frozen=True)
class Shift:
    """An option on validation minus the same on test: other images, the same networks.

    Attributes:
        difference: positive when validation was better.
        low: lower end of its 95% interval.
        high: upper end.
        beyond_chance: the interval excludes 0.
    """

    difference: float
    low: float
    high: float
    beyond_chance: bool


@dataclass(frozen=True)
class Contrast:
    """The recommended option against another one.

    Attributes:
        option: the other one.
        n_accuracy: recommended minus other.
        ri: likewise.
    """

    option: Option
    n_accuracy: Gap
    ri: Gap


def contrast(first: Option, second: Option, comparisons: Iterable[Comparison]) -> Contrast:
    """Compare two options.

    Args:
        first: the recommended one.
        second: the other one.
        comparisons: paired comparisons of the run.
    """
    paired = _paired(first, second, comparisons) if first.n == second.n else {}
    gaps = {metric: paired.get(metric) or _independent(first, second, metric) for metric in ("n_accuracy", "ri")}
    return Contrast(second, gaps["n_accuracy"], gaps["ri"])


def _paired(first: Option, second: Option, comparisons: Iterable[Comparison]) -> dict[str, Gap]:
    pair, gaps = (Identity.of(first), Identity.of(second)), dict[str, Gap]()
    for c in comparisons:
        if c.n == first.n and c.pair == pair:
            gaps[c.metric] = Gap(c.difference, c.low_adjusted, c.high_adjusted, True, c.verdict, c.correction)
        elif c.n == first.n and c.pair == pair[::-1]:
            verdict = OPPOSITE[c.verdict]
            gaps[c.metric] = Gap(-c.difference, -c.high_adjusted, -c.low_adjusted, True, verdict, c.correction)
    return gaps


def shift(option: Option, metric: Metric) -> Shift:
    """Compare what an option gives on validation, where it was chosen, with test."""
    names = [f"{metric}{end}" for end in ("", "_low", "_high")]
    on_validation, on_test = ([getattr(option, f"{where}{name}") for name in names] for where in ("validation_", ""))
    difference, low, high = square_and_add(tuple(on_validation), tuple(on_test))
    return Shift(difference, low, high, low > 0 or high < 0)


def _independent(first: Option, second: Option, metric: Metric) -> Gap:
    one, two = (tuple(getattr(option, f"{metric}{end}") for end in ("", "_low", "_high")) for option in (first, second))
    difference, low, high = square_and_add(one, two)
    verdict: Verdict = "better" if low > 0 else "worse" if high < 0 else "undecided"
    if min(first.seeds, second.seeds) < MIN_SEEDS:
        verdict = "no verdict"
    return Gap(difference, low, high, False, verdict, ALONE)


def square_and_add(one: Ends, two: Ends) -> Ends:
    """Return the difference of two independent estimates with the interval that follows from theirs.

    It holds the difference, also where an estimate is outside its own interval by rounding.

    Reference:
        Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.

    >>> square_and_add((0.75, 0.5, 0.875), (0.5, 0.25, 0.5))
    (0.25, 0.0, 0.5295084971874737)
    """
    (first, first_low, first_high), (second, second_low, second_high) = one, two
    down = math.hypot(max(0.0, first - first_low), max(0.0, second_high - second))
    up = math.hypot(max(0.0, first_high - first), max(0.0, second - second_low))
    return first - second, first - second - down, first - second + up
