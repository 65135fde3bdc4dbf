"""The sweet spot: how far to compress, by five named rules on plain rows.

Rules choose on validation points; what is reported is the same ratio and n on test. Every rule works on
`[replicates, points]` arrays, so that a choice and its stability over replicates share one code path.

- `retain`: the cheapest ratio whose RI is at least a share of the dense network's at the same n.
- `budget`: the ratio and n of the highest RI that cost at most so many dense passes; the cheaper of equals.
- `target`: the cheapest ratio and n whose n-accuracy is at least a given one.
- `knee`: the point of the envelope of (cost, RI) farthest above the chord in (log2 cost, RI), both scaled to [0, 1].
- `marginal`: the end of the last step along the envelope, cheap to dear, that gains enough RI per doubling of cost.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from sharedlabel.errors import ConfigError, DataError, nearest

Array: TypeAlias = NDArray[Any]
NONE = -1
Method = TypeVar("Method", bound=Hashable)


@dataclass(frozen=True)
class Point:
    """One compressed network at one number of instances.

    Args:
        ratio: compression ratio, 1 for the dense network.
        n: instances per tuple.
        cost: cost in dense passes.
        ri: relative information.
        n_accuracy: n-accuracy, in [0, 1].
    """

    ratio: float
    n: int
    cost: float
    ri: float
    n_accuracy: float


@dataclass(frozen=True)
class Rule:
    """A rule and its parameter.

    Args:
        name: `retain`, `budget`, `target`, `knee` or `marginal`.
        value: rho (share of the dense RI), budget in dense passes, n-accuracy, none, or RI per doubling of cost.
        n: look at this n alone; needed by `retain`, optional elsewhere.
    """

    name: str
    value: int | float | None = None
    n: int | None = None

    def __post_init__(self) -> None:
        if self.name not in _RULES:
            raise ConfigError(f"unknown sweet-spot rule {self.name!r}; {nearest(self.name, _RULES)}")
        expected, valid = _RULES[self.name].value
        if not valid(self.value):
            raise ConfigError(f"rule {self.name!r} takes {expected} as its value, got {self.value}")
        if self.name == "retain" and self.n is None:
            raise ConfigError("rule 'retain' compares networks at one n, got n = None; give it an n")


@dataclass(frozen=True)
class Choice:
    """What a rule chose.

    Attributes:
        point: the chosen point, or None when nothing qualifies.
        rule: the rule.
        interior: the chosen ratio is strictly between the smallest and the largest ratio of the grid.
        reason: why nothing qualifies; empty otherwise.
    """

    point: Point | None
    rule: Rule
    interior: bool
    reason: str


@dataclass(frozen=True)
class Stability:
    """How a rule's choice varies over replicates.

    Attributes:
        replicates: how many.
        interior: share of replicates whose choice is interior; one without a choice is not.
        undecided: share of replicates in which nothing qualifies.
        chosen: share of replicates that choose each (ratio, n), most frequent first.
    """

    replicates: int
    interior: float
    undecided: float
    chosen: dict[tuple[float, int], float]


@dataclass(frozen=True)
class _Grid:
    """Points that a rule looks at, as arrays: `[points]`, and `[replicates, points]` for what varies."""

    ratio: Array
    n: Array
    cost: Array
    ri: Array
    accuracy: Array


def _first(eligible: Array, *keys: Array) -> Array:
    """Return, per replicate, the eligible point that is smallest in the keys, or NONE."""
    rejected = ~eligible
    order = np.lexsort([np.broadcast_to(key, eligible.shape) for key in (*reversed(keys), rejected)], axis=-1)
    return np.where(eligible.any(axis=1), order[:, 0], NONE)


def _retain(grid: _Grid, rho: float) -> tuple[Array, str]:
    dense = np.flatnonzero(grid.ratio == 1)
    if not len(dense):
        return np.full(len(grid.ri), NONE), "no dense network (ratio 1) at this n"
    reference = grid.ri[:, dense[:1]]
    eligible = (reference > 0) & (grid.ri >= rho * reference)
    return _first(eligible, grid.cost, -grid.ri), "the dense network's relative information is not positive"


def _budget(grid: _Grid, budget: float) -> tuple[Array, str]:
    eligible = np.broadcast_to(grid.cost <= budget * (1 + 1e-9), grid.ri.shape)
    return _first(eligible, -grid.ri, grid.cost), f"the cheapest point costs {grid.cost.min():.4g} dense passes"


def _target(grid: _Grid, accuracy: float) -> tuple[Array, str]:
    best = f"the highest n-accuracy is {grid.accuracy.max():.4g}"
    return _first(grid.accuracy >= accuracy, grid.cost, -grid.accuracy), best


@dataclass(frozen=True)
class _Envelope:
    """Points from cheap to dear, `[replicates, points]`: those on the Pareto envelope, and the one before each."""

    order: Array
    on: Array
    ri: Array
    log_cost: Array
    ri_before: Array
    log_cost_before: Array


def _envelope(grid: _Grid) -> _Envelope:
    cost = np.broadcast_to(np.log2(grid.cost), grid.ri.shape)
    order = np.lexsort((-grid.ri, cost), axis=-1)
    ri, log_cost = (np.take_along_axis(values, order, axis=1) for values in (grid.ri, cost))
    start = np.full((len(ri), 1), -np.inf)
    # On the envelope RI rises, so the best RI so far is that of the envelope's point before.
    before = np.concatenate([start, np.maximum.accumulate(ri, axis=1)[:, :-1]], axis=1)
    on = ri > before
    cost_so_far = np.maximum.accumulate(np.where(on, log_cost, -np.inf), axis=1)
    return _Envelope(order, on, ri, log_cost, before, np.concatenate([start, cost_so_far[:, :-1]], axis=1))


def _knee(grid: _Grid, _: float) -> tuple[Array, str]:
    line = _envelope(grid)
    low, high = line.log_cost[:, :1], np.where(line.on, line.log_cost, -np.inf).max(axis=1, keepdims=True)
    bottom, top = line.ri[:, :1], line.ri.max(axis=1, keepdims=True)
    x = (line.log_cost - low) / np.where(high > low, high - low, 1)
    y = (line.ri - bottom) / np.where(top > bottom, top - bottom, 1)
    above = line.on & (y - x > 1e-12)
    sorted_choice = _first(above, -(y - x), line.log_cost)
    return _unsort(line, sorted_choice), "no point of the Pareto envelope lies above the chord between its ends"


def _marginal(grid: _Grid, tau: float) -> tuple[Array, str]:
    line = _envelope(grid)
    step = line.on & np.isfinite(line.ri_before)
    rise = np.where(step, line.ri - np.where(step, line.ri_before, 0), 0)
    doublings = np.where(step, line.log_cost - np.where(step, line.log_cost_before, 0), 1)
    sorted_choice = _first(step & (rise >= tau * doublings), -line.log_cost)
    return _unsort(line, sorted_choice), "no step along the Pareto envelope gains that much"


def _unsort(line: _Envelope, choice: Array) -> Array:
    original = np.take_along_axis(line.order, np.maximum(choice, 0)[:, None], axis=1)[:, 0]
    return np.where(choice == NONE, NONE, original)


@dataclass(frozen=True)
class _Definition:
    choose: Callable[[_Grid, float], tuple[Array, str]]
    value: tuple[str, Callable[[float | None], bool]]


_RULES = {
    "retain": _Definition(_retain, ("a share in (0, 1]", lambda v: v is not None and 0 < v <= 1)),
    "budget": _Definition(_budget, ("a positive number of dense passes", lambda v: v is not None and v > 0)),
    "target": _Definition(_target, ("an n-accuracy in (0, 1]", lambda v: v is not None and 0 < v <= 1)),
    "knee": _Definition(_knee, ("nothing", lambda v: v is None)),
    "marginal": _Definition(_marginal, ("an RI of at least 0", lambda v: v is not None and v >= 0)),
}


def _grid(points: Sequence[Point], ri: Array | None = None, accuracy: Array | None = None) -> _Grid:
    if not points:
        raise DataError("expected at least one point to choose from, got none; evaluate the grid first")
    places = [(point.ratio, point.n) for point in points]
    if len(set(places)) < len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise DataError(
            f"expected one point per ratio and n, got two at ratio {twice[0]:g}, n = {twice[1]}; filter them"
        )
    ratio, n, cost, own_ri, own_accuracy = np.array([list(vars(point).values()) for point in points]).T
    given_ri = own_ri[None] if ri is None else ri
    given_accuracy = np.tile(own_accuracy, (len(given_ri), 1)) if accuracy is None else accuracy
    grid = _Grid(ratio, n.astype(int), cost, given_ri, given_accuracy)
    _check(grid)
    return grid


def _check(grid: _Grid) -> None:
    for name, values in (("RI", grid.ri), ("n-accuracy", grid.accuracy), ("cost", grid.cost[None])):
        if values.ndim != 2 or values.shape[1] != len(grid.ratio):
            raise DataError(
                f"expected {name} as [replicates, {len(grid.ratio)}], got {values.shape}; pass one per point"
            )
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            at, value = bad[0][1], values[tuple(bad[0])]
            where = f"ratio {grid.ratio[at]:g}, n = {grid.n[at]}"
            raise DataError(f"expected a finite {name}, got {value} at {where}; remove that point or run it again")
    if (grid.cost <= 0).any():
        raise DataError(f"expected positive costs, got {grid.cost.min():g} dense passes; check the cost of that point")


def _apply(grid: _Grid, rule: Rule) -> tuple[Array, str]:
    """Return the chosen position in the grid for each replicate, or NONE, and the reason for NONE."""
    kept = np.arange(len(grid.n)) if rule.n is None else np.flatnonzero(grid.n == rule.n)
    if not len(kept):
        return np.full(len(grid.ri), NONE), f"no point has n = {rule.n}"
    part = _Grid(grid.ratio[kept], grid.n[kept], grid.cost[kept], grid.ri[:, kept], grid.accuracy[:, kept])
    value = 0.0 if rule.value is None else float(rule.value)
    choice, reason = _RULES[rule.name].choose(part, value)
    return np.where(choice == NONE, NONE, kept[np.maximum(choice, 0)]), reason


def _interior(grid: _Grid, choice: Array) -> Array:
    ratio = grid.ratio[np.maximum(choice, 0)]
    inside: Array = (choice != NONE) & (ratio > grid.ratio.min()) & (ratio < grid.ratio.max())
    return inside


def choose(points: Sequence[Point], rule: Rule) -> Choice:
    """Apply a rule to the points of one method.

    Args:
        points: one per ratio and n, from validation.
        rule: the rule.

    Raises:
        DataError: no points, two at one place, or a value that is not finite.
    """
    grid = _grid(points)
    chosen, reason = _apply(grid, rule)
    if chosen[0] == NONE:
        return Choice(None, rule, False, reason)
    return Choice(points[int(chosen[0])], rule, bool(_interior(grid, chosen)[0]), "")


def interior_share(points: Sequence[Point], rule: Rule, ri: Array, accuracy: Array | None = None) -> Stability:
    """Apply a rule to replicates of the same points.

    Args:
        points: one per ratio and n; their cost is used, and their n-accuracy where no replicates of it are given.
        rule: the rule.
        ri: `[replicates, points]`, RI in each replicate.
        accuracy: `[replicates, points]`, n-accuracy in each replicate, for `target`.

    Raises:
        DataError: as for `choose`, or replicates of another shape.
    """
    grid = _grid(points, ri, accuracy)
    chosen, _ = _apply(grid, rule)
    places, counts = np.unique(chosen[chosen != NONE], return_counts=True)
    by_frequency = sorted(zip(counts.tolist(), places.tolist(), strict=True), key=lambda pair: (-pair[0], pair[1]))
    shares = {(points[place].ratio, points[place].n): count / len(ri) for count, place in by_frequency}
    return Stability(len(ri), float(_interior(grid, chosen).mean()), float((chosen == NONE).mean()), shares)


def across(methods: Mapping[Method, Sequence[Point]], rule: Rule) -> list[tuple[Method, Choice]]:
    """Apply a rule to every method and order the methods that have a choice by it, the best first.

    `target` prefers the cheapest choice, then the highest n-accuracy; the others the highest RI, then the cheapest.

    Args:
        methods: points of every method, at least one each.
        rule: the rule.

    Raises:
        DataError: as for `choose`.
    """
    choices = [(method, choose(points, rule)) for method, points in methods.items()]
    return sorted(((m, choice) for m, choice in choices if choice.point), key=lambda pair: _preference(pair[1]))


def _preference(choice: Choice) -> tuple[float, float]:
    assert choice.point is not None
    if choice.rule.name == "target":
        return choice.point.cost, -choice.point.n_accuracy
    return -choice.point.ri, choice.point.cost
