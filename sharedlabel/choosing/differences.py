"""How much two options differ: by a paired comparison of the run where there is one, else from their own intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sharedlabel.choosing.candidates import DENSE, Option, Place
from sharedlabel.results import OPPOSITE, Comparison, Verdict

Metric = Literal["n_accuracy", "ri"]


@dataclass(frozen=True)
class Gap:
    """One option minus another, on test.

    Attributes:
        difference: positive when the first is better.
        low: lower end of its 95% interval.
        high: upper end.
        paired: from the differences of each tuple's scores. Otherwise the two intervals are combined as if they were
            independent, which is too wide as a rule, since both are about the same images.
        verdict: of the first option: `better`, `worse` or `tied`. Paired: after Holm's adjustment over the run's
            comparisons; else whether the interval excludes 0.
    """

    difference: float
    low: float
    high: float
    paired: bool
    verdict: Verdict


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


def contrast(first: Option, second: Option, protocol: str, comparisons: Iterable[Comparison]) -> Contrast:
    """Compare two options.

    Args:
        first: the recommended one.
        second: the other one.
        protocol: of both.
        comparisons: paired comparisons of the run.
    """
    paired = _paired(first.place, second.place, protocol, comparisons) if first.n == second.n else {}
    gaps = {metric: paired.get(metric) or _independent(first, second, metric) for metric in ("n_accuracy", "ri")}
    return Contrast(second, gaps["n_accuracy"], gaps["ri"])


def _paired(first: Place, second: Place, protocol: str, comparisons: Iterable[Comparison]) -> dict[str, Gap]:
    found: dict[str, Gap] = {}
    for c in comparisons:
        if (c.n, c.protocol) == (first.n, protocol):
            pair = _places(c)
            if pair == (first, second):
                found[c.metric] = Gap(c.difference, c.low, c.high, True, c.verdict)
            elif pair == (second, first):
                found[c.metric] = Gap(-c.difference, -c.high, -c.low, True, OPPOSITE[c.verdict])
    return found


def _places(c: Comparison) -> tuple[Place, Place]:
    method = Place(c.backbone, c.pruner, c.ratio, c.aggregator, c.training, c.n)
    if c.axis == "compression":
        return method, method._replace(pruner=DENSE, ratio=1.0)
    return method, method._replace(**{c.axis: c.reference})  # type: ignore[arg-type]


def _independent(first: Option, second: Option, metric: Metric) -> Gap:
    """Combine two intervals by square-and-add.

    Reference:
        Newcombe, "Interval estimation for the difference between independent proportions" (1998), method 10.
    """
    (one, one_low, one_high), (two, two_low, two_high) = (
        [getattr(option, name) for name in (metric, f"{metric}_low", f"{metric}_high")] for option in (first, second)
    )
    difference = one - two
    low = difference - ((one - one_low) ** 2 + (two_high - two) ** 2) ** 0.5
    high = difference + ((one_high - one) ** 2 + (two - two_low) ** 2) ** 0.5
    return Gap(difference, low, high, False, "better" if low > 0 else "worse" if high < 0 else "tied")
