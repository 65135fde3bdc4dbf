"""`sharedlabel.sweet_spot`: how far to compress, from points of one's own."""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Mapping
from typing import Any

from sharedlabel.config.schema import shown
from sharedlabel.config.sections import SweetSpotConfig
from sharedlabel.errors import ConfigError, DataError, nearest
from sharedlabel.summary.sweetspot import Choice, Point, Rule, choose

_USUAL = SweetSpotConfig()
# The argument that each rule takes, and its value where it is left out.
_ARGUMENTS: dict[str, tuple[str, float | None]] = {
    "budget": ("passes", 1.0),
    "retain": ("share", _USUAL.retain),
    "target": ("accuracy", _USUAL.target),
    "marginal": ("gain", _USUAL.marginal),
    "knee": ("", None),
}
_COLUMNS = ("ratio", "n", "cost", "ri", "n_accuracy")
_COST = "cost_dense_passes"  # what tables call the cost


def sweet_spot(points: Any, rule: str = "budget", *, n: int | None = None, **value: int | float) -> Choice:
    """Choose how far to compress one method.

    Choose on validation, and report the same ratio and n on test.

    Args:
        points: one per ratio and n: tuples `(ratio, n, cost, ri, n_accuracy)`, mappings with these names, or a
            DataFrame with these columns, such as a part of `results.summaries`. The ratio is 1 for the dense network,
            the cost of a tuple is in dense passes (`cost_dense_passes` in tables), RI and n-accuracy are shares.
        rule: what counts. `budget`: the highest RI that costs at most so many dense `passes`. `retain`: the cheapest
            ratio with at least a `share` of the dense network's RI, at one n. `target`: the cheapest with an n-accuracy
            of at least `accuracy`. `knee`: the bend of the curve of RI over the logarithm of cost. `marginal`: the end
            of the last step along that curve that gains so much RI (`gain`) per doubling of cost.
        n: look at this n alone; `retain` needs one.
        value: the value of the rule, by its name above. Left out, it is `passes=1.0`, `share=0.98`, `accuracy=0.95` or
            `gain=0.02`; `knee` takes none.

    Returns:
        The choice: its `point`, or None and the `reason` why nothing qualifies; whether it is `interior`, not at an end
        of the ratios.

    Raises:
        ConfigError: an unknown rule, or a value that it does not take.
        DataError: no points, two of one ratio and n, or one without a finite value.

    >>> points = [(1, 1, 1.0, 0.70, 0.80), (4, 1, 0.25, 0.69, 0.78), (4, 4, 1.0, 0.93, 0.95)]
    >>> choice = sweet_spot(points, rule="budget", passes=1.0)
    >>> choice.point.ratio, choice.point.n
    (4.0, 4)
    >>> sweet_spot(points, rule="retain", n=1).point.ratio
    4.0
    """
    if rule not in _ARGUMENTS:
        raise ConfigError(f"unknown sweet-spot rule {rule!r}; {nearest(rule, _ARGUMENTS)}")
    argument, usual = _ARGUMENTS[rule]
    for name in value.keys() - {argument}:
        takes = f"{argument}=..." if argument else "no value"
        raise ConfigError(f"rule {rule!r} takes {takes}, got {name}={shown(value[name])}; correct its name")
    if hasattr(points, "to_dict"):  # a DataFrame, whatever library it is of
        points = points.to_dict("records")
    return choose([_point(each) for each in points], Rule(rule, value.get(argument, usual), n))


def _point(given: Any) -> Point:
    """Read one point."""
    if isinstance(given, Point):
        return given
    if isinstance(given, Mapping):
        named = {"cost": given[_COST], **given} if _COST in given else given
        missing = [name for name in _COLUMNS if name not in named]
        if missing:
            raise DataError(
                f"expected points with {', '.join(_COLUMNS)}, got one without {', '.join(missing)}; add or rename it"
            )
        given = [named[name] for name in _COLUMNS]
    values = list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
    if len(values) != len(_COLUMNS) or not all(isinstance(value, numbers.Real) for value in values):
        raise DataError(
            f"expected points of five numbers, {', '.join(_COLUMNS)}, got {shown(values)}; correct that one"
        )
    ratio, n, cost, ri, accuracy = values
    return Point(float(ratio), int(n), float(cost), float(ri), float(accuracy))
