"""What the report says, picked from the rows: views, best methods, sweet-spot winners, warnings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from sharedlabel.choose.candidates import Option
from sharedlabel.config.names import CROSSFIT, DENSE, DENSE_NETWORK, EXACT, IID, method_name
from sharedlabel.errors import StoreError
from sharedlabel.records import (
    TABLES,
    AdaptivePoint,
    Comparison,
    Identity,
    Rank,
    Results,
    Row,
    Summary,
    SweetSpot,
    Tables,
    Verdict,
)
from sharedlabel.records.answers import Confusion
from sharedlabel.records.measurements import Failure, Latency, Margin, ReliabilityBin

TIMES = "latency"  # the stage whose failure costs a cell its times alone
Network = TypeVar("Network", Row, Latency, Margin)
RULES = ("budget", "retain", "target", "knee", "marginal")


@dataclass(frozen=True, kw_only=True)
class View(Tables):
    """The tables of one data set, backbone and protocol; what is said of networks is the same for every protocol."""

    data: str
    backbone: str
    protocol: str
    order_free: tuple[str, ...] = ()

    @property
    def network(self) -> tuple[str, str]:
        """Data set and backbone: what views of different protocols have in common."""
        return self.data, self.backbone

    @property
    def pruners(self) -> tuple[str, ...]:
        """Pruners in alphabetical order; the dense network alone stands in when there are none."""
        names = {s.pruner for s in self.summaries} | {r.pruner for r in self.latencies}
        return tuple(sorted(names - {DENSE})) or (DENSE,)

    @property
    def ns(self) -> tuple[int, ...]:
        """Instances per tuple, ascending."""
        return tuple(sorted({s.n for s in self.summaries}))

    @property
    def ratios(self) -> tuple[float, ...]:
        """Requested ratios, ascending."""
        return tuple(sorted({s.ratio for s in self.summaries}))

    @property
    def seeds(self) -> int:
        """Training seeds of the best covered method."""
        return max((s.seeds for s in self.summaries), default=len({r.seed for r in self.latencies}))

    def tests(self, pruner: str | None = None, n: int | None = None) -> list[Summary]:
        """List the test summaries, of one pruner (the dense network included) and one n if they are given."""
        return [
            s
            for s in self.summaries
            if s.split == "test" and (pruner is None or s.pruner in {pruner, DENSE}) and (n is None or s.n == n)
        ]


@dataclass(frozen=True)
class Best:
    """The method with the highest RI on validation at one ratio and n.

    Attributes:
        chosen: its summary on test.
        others: methods that are not shown to be worse on test, best first.
        rivals: methods it was compared with.
    """

    chosen: Summary
    others: tuple[Summary, ...]
    rivals: int

    def named(self, shown: int) -> str:
        """Name the others that may be as good, the first `shown` of them if they are many."""
        if self.rivals > 1 and len(self.others) == self.rivals:
            return "all"
        own = network(self.chosen)
        names = [method(s) if network(s) == own else f"{method(s)} on {network(s)}" for s in self.others]
        return ", ".join(names[:shown]) + (f" +{len(names) - shown}" if len(names) > shown else "")


@dataclass(frozen=True)
class FailedCall:
    """A stage call that failed, and what that costs.

    Attributes:
        first: the first of the cells that need it.
        cells: how many need it.
        lost: what they lack, in words.
    """

    first: Failure
    cells: int
    lost: str


def failed(results: Results) -> list[FailedCall]:
    """List the calls that failed, each once."""
    by_call: dict[tuple[str, str], list[Failure]] = {}
    for failure in results.failures:
        by_call.setdefault((failure.stage, failure.key), []).append(failure)
    return [
        FailedCall(own[0], len(own), f"{_count(len(own))} without {'times' if own[0].stage == TIMES else 'numbers'}")
        for own in by_call.values()
    ]


def shortfall(results: Results) -> str:
    """Say how many cells failed, and what that does to the tables; empty where none did."""
    if not results.failures:
        return ""
    lost, untimed = (sum((failure.stage == TIMES) is timed for failure in results.failures) for timed in (False, True))
    parts = [f"{lost} of {_count(results.cells)} failed"] if lost else []
    parts += [f"the times of {_count(untimed)} could not be measured"] if untimed else []
    said = [f"{' and '.join(parts)}."]
    whole = len({row.cell for row in results.rows})
    apart = results.cells - lost - whole
    if apart > 0:
        said.append(
            f"{_count(apart)} that did not fail {'is' if apart == 1 else 'are'} in no table: not computed, or of a "
            "method that lacks a seed or its dense network."
        )
    if not whole:
        said.append("No method is whole, so there are no tables.")
    said.append("What is done is stored; the same command tries what failed again and goes on with the rest.")
    return " ".join(said)


def _count(cells: int) -> str:
    return f"{cells} cell{'s' * (cells != 1)}"


def split(results: Results) -> tuple[View, ...]:
    """Split results into one view per data set, backbone and protocol; none where cells have failed and none is whole.

    Raises:
        StoreError: no cell has finished, nor failed.
    """
    keys = sorted({(s.data, s.backbone, s.protocol) for s in results.summaries}, key=lambda k: (*k[:2], k[2] != IID))
    if not keys and not results.failures:
        raise StoreError(
            f"expected at least one finished cell in {results.experiment!r}, got no summaries; run the grid to the end"
        )
    return tuple(_view(results, *key) for key in keys)


def _view(results: Results, data: str, backbone: str, protocol: str) -> View:
    own = {"data": data, "backbone": backbone, "protocol": protocol}

    def inside(record: Any) -> bool:
        """Tell whether a record is of this view; what is said of networks is the same for every protocol."""
        return all(getattr(record, column, None) in {None, value} for column, value in own.items())

    tables = {name: tuple(filter(inside, getattr(results, name))) for name in TABLES}
    return View(**own, order_free=results.order_free, **tables)  # type: ignore[arg-type]


def usual(records: Sequence[Network]) -> list[Network]:
    """Keep what is said of networks of the configured splits; where there are none, that of cross-fitting."""
    return [record for record in records if record.training != CROSSFIT] or list(records)


def method(record: Row | Summary | SweetSpot | ReliabilityBin | Rank | AdaptivePoint | Confusion | Option) -> str:
    """Name an aggregator and, when it is not the default, its training."""
    return method_name(record.aggregator, record.training)


def place(record: Row | Summary | SweetSpot | Option) -> str:
    """Name a method and the network that it runs on."""
    return f"{method(record)} on {network(record)}"


def network(record: Row | Summary | SweetSpot | Option) -> str:
    """Name the compressed network: its pruner, or `dense`."""
    return DENSE_NETWORK if dense(record) else record.pruner


def dense(record: Row | Summary | SweetSpot | Option) -> bool:
    """Tell whether a record is about the uncompressed network."""
    return record.pruner == DENSE or record.ratio == 1


def best_methods(view: View) -> list[Best]:
    """Pick the best method for every ratio and n.

    The choice is made on validation, what is shown is test. The exact posterior of synthetic data is not a method.
    Others may be as good: no paired comparison finds them worse or, on another network, the intervals overlap.
    """
    verdicts = _verdicts(view.comparisons)
    groups: dict[tuple[float, int], list[Summary]] = {}
    for summary in view.summaries:
        if summary.aggregator != EXACT:
            groups.setdefault((summary.ratio, summary.n), []).append(summary)
    bests = (_best(groups[key], verdicts) for key in sorted(groups))
    return [best for best in bests if best is not None]


def _verdicts(comparisons: Iterable[Comparison]) -> dict[tuple[int, Identity, Identity], Verdict]:
    """Index the verdicts on RI by n, method and reference."""
    return {(c.n, *c.pair): c.verdict for c in comparisons if c.metric == "ri"}


def _best(group: Sequence[Summary], verdicts: Mapping[tuple[int, Identity, Identity], Verdict]) -> Best | None:
    tests = {Identity.of(s): s for s in group if s.split == "test"}
    validation = [s for s in group if s.split == "validation" and Identity.of(s) in tests]
    if not validation:
        return None
    chosen = tests[Identity.of(max(validation, key=lambda s: s.ri))]
    others = sorted((s for s in tests.values() if s is not chosen), key=lambda s: -s.ri)
    return Best(chosen, tuple(s for s in others if _may_match(chosen, s, verdicts)), len(others))


def _may_match(best: Summary, other: Summary, verdicts: Mapping[tuple[int, Identity, Identity], Verdict]) -> bool:
    first, second = Identity.of(best), Identity.of(other)
    forward, backward = verdicts.get((best.n, first, second)), verdicts.get((best.n, second, first))
    if forward or backward:
        return forward != "better" and backward != "worse"
    return other.ri_high >= best.ri_low


def winners(view: View, rules: Iterable[str] = RULES) -> list[SweetSpot]:
    """Pick, for every rule, value and n, the method whose choice is best on validation.

    `target`: the cheapest choice wins. `retain`: the cheapest that keeps the share of the best dense RI, so that a
    method with a poor dense RI does not win by keeping little. The other rules: the highest RI. Where nothing qualifies
    for any method, one of the choices without a ratio stands for all; what is no better than guessing wins only over
    these.
    """
    groups: dict[tuple[str, float, int], list[SweetSpot]] = {}
    for spot in view.sweet_spots:
        if spot.rule in set(rules) and spot.aggregator != EXACT:
            groups.setdefault((spot.rule, spot.value or 0.0, spot.rule_n or 0), []).append(spot)
    order = sorted(groups, key=lambda key: (RULES.index(key[0]), *key[1:]))
    return [min(groups[key], key=lambda spot: _rank(spot, view)) for key in order]


def _rank(spot: SweetSpot, view: View) -> tuple[bool, bool, bool, float, float]:
    cost = float("inf") if spot.cost_dense_passes is None else spot.cost_dense_passes
    ri = float("-inf") if spot.validation_ri is None else spot.validation_ri
    short = spot.rule == "retain" and ri < (spot.value or 0.0) * _dense_ri(view, spot.rule_n)
    cheapest = spot.rule in {"target", "retain"} and not short
    return spot.ratio is None, spot.guessing, short, cost if cheapest else 0.0, -ri


def _dense_ri(view: View, n: int | None) -> float:
    dense_ris = (
        s.ri for s in view.summaries if s.split == "validation" and s.n == n and dense(s) and s.aggregator != EXACT
    )
    return max(dense_ris, default=float("-inf"))


def headline(view: View) -> SweetSpot | None:
    """Return the winner at a budget of one dense pass, or at the middle budget, or None without budgets."""
    budgets = winners(view, ("budget",))
    return next((s for s in budgets if s.value == 1), budgets[len(budgets) // 2] if budgets else None)


def collapses(results: Results) -> list[str]:
    """Phrase a warning for every network that has a layer without a weight left."""
    empty: dict[tuple[str, str, str, float, int], dict[str, None]] = {}
    for layer in results.layers:
        if layer.weights == 0:
            network = layer.data, layer.backbone, layer.pruner, layer.ratio, layer.seed
            empty.setdefault(network, {})[layer.layer] = None
    seeds_of: dict[tuple[str, str, str, float, str], list[int]] = {}
    for (data, backbone, pruner, ratio, seed), names in sorted(empty.items()):
        seeds_of.setdefault((data, backbone, pruner, ratio, ",".join(names)), []).append(seed)
    return [
        f"{pruner} at {ratio:g}x left layers of {backbone} on {data} without a weight: {layers} "
        f"(seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))})"
        for (data, backbone, pruner, ratio, layers), seeds in sorted(seeds_of.items())
    ]
