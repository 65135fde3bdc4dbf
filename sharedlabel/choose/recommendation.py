"""The recommendation: chosen on validation by the rules of the sweet spot, reported on test.

What is no better than guessing is not recommended, nor is anything by a time that was measured on a busy machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from sharedlabel.choose.candidates import Option, Request, Unit, options
from sharedlabel.choose.differences import Contrast, Shift, contrast, shift
from sharedlabel.config.names import DENSE, method_name, network_name
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.errors import DataError
from sharedlabel.measurements.timing import BUSY
from sharedlabel.records import Identity, Results, SweetSpot
from sharedlabel.records.written import number, percent
from sharedlabel.summary import sweetspot
from sharedlabel.summary.sweetspot import Point, Rule

_SLACK = 1 + 1e-9  # forgives the rounding of sums
_CHEAPER = 0.9  # of the cost
Edge: TypeAlias = Literal["only", "inside", "smallest", "largest"]


@dataclass(frozen=True)
class Agreement:
    """How many replicates of the run's sweet spot by the same rule choose the same.

    Attributes:
        share: of replicates that choose this very ratio and n, for this method.
        replicates: how many, with images (or groups) and seeds drawn anew.
    """

    share: float
    replicates: int


@dataclass(frozen=True)
class Recommendation:
    """What to deploy, what it costs, what it gives and what it gives up.

    Attributes:
        data: data set name.
        protocol: `iid` or `grouped`.
        seeds: training seeds of the results.
        request: what was asked for, defaults included.
        unit: the dense network whose passes the budget is counted in.
        backbones: how many there are to choose from.
        recommended: the option.
        target_on_test: how the target fares on test: `reached` when the lower end of the interval of n-accuracy reaches
            it, `mean` when the mean does but not the lower end, `missed` otherwise; None without a target.
        dense: against the dense network with the same n, aggregator and training; None if it is the dense network or
            that was not run.
        best: against the option with the highest RI on validation, without budget, target, n or latency; None if it is
            the recommended one.
        cheaper: against the cheapest option that satisfies every limit and, on validation, has no less RI than the
            recommended one but for the run's margin of equivalence; None if none is a tenth cheaper, or if the cheapest
            was asked for.
        margin: that margin, RI.
        runner_up: against the choice of the next best method (backbone, pruner, aggregator and training) under the same
            request; None if no other method has one.
        considered: options that were looked at, limits apart.
        qualified: how many of them satisfy every limit.
        passed_over: the option that would have been chosen, were it better than guessing; None if there is none.
        agreement: how stable the choice is; None where the run has no sweet spot of the same rule and method.
        ratio_edge: where the ratio is among those of its pruner in the results.
        n_edge: where n is among those that were considered.
        images: images of each split; empty if the results do not say.
        groups: groups that these come from; empty where there are none.
        shift_n_accuracy: validation minus test, recommended option.
        shift_ri: likewise.
    """

    data: str
    protocol: str
    seeds: int
    request: Request
    unit: Unit
    backbones: int
    recommended: Option
    target_on_test: Literal["reached", "mean", "missed"] | None
    dense: Contrast | None
    best: Contrast | None
    cheaper: Contrast | None
    margin: float
    runner_up: Contrast | None
    considered: int
    qualified: int
    passed_over: Option | None
    agreement: Agreement | None
    ratio_edge: Edge
    n_edge: Edge
    images: dict[str, int]
    groups: dict[str, int]
    shift_n_accuracy: Shift
    shift_ri: Shift


def recommend(results: Results, request: Request) -> Recommendation:
    """Choose on validation.

    Args:
        results: of a run.
        request: limits and labels.

    Raises:
        ConfigError: a label, an n or a latency setting that the results do not have.
        DataError: nothing qualifies; the message names the nearest miss.
    """
    everything, unit, protocol, seeds = options(results, request)
    considered = [option for option in everything if request.n in {None, option.n}]
    within = [option for option in considered if not _excess(option, request)]
    if not within:
        raise DataError(_miss(considered, request))
    ordered = _ordered(within, request)
    chosen, rest = ordered[0], ordered[1:]
    unfloored = _ordered(
        [option for option in considered if not _excess(option, request).keys() - {"guessing"}], request
    )
    by_place = {option.place: option for option in everything}
    dense = by_place.get((Identity.of(chosen).dense, chosen.n), chosen)
    best = max(everything, key=lambda option: (option.validation_ri, -option.cost_units))
    other = next((option for option in rest if _method(option) != _method(chosen)), None)
    margin = float(results.config.get("comparison", {}).get("margin", ComparisonConfig().margin))

    def against(option: Option | None) -> Contrast | None:
        return None if option in {None, chosen} else contrast(chosen, option, results.comparisons)

    return Recommendation(
        data=results.rows[0].data,
        protocol=protocol,
        seeds=seeds,
        request=request,
        unit=unit,
        backbones=len({option.backbone for option in everything}),
        recommended=chosen,
        target_on_test=_on_test(chosen, request.target_accuracy),
        dense=against(dense),
        best=against(best),
        cheaper=None if request.target_accuracy is not None else against(_cheapest(within, chosen, margin)),
        margin=margin,
        runner_up=against(other),
        considered=len(considered),
        qualified=len(within),
        passed_over=unfloored[0] if unfloored[0].guessing else None,
        agreement=_agreement(chosen, request, unit, results.sweet_spots),
        ratio_edge=_edge(chosen.ratio, [o.ratio for o in everything if _same_grid(o, chosen)]),
        n_edge=_edge(chosen.n, [option.n for option in considered]),
        images=dict(results.dataset.images),
        groups=dict(results.dataset.groups),
        shift_n_accuracy=shift(chosen, "n_accuracy"),
        shift_ri=shift(chosen, "ri"),
    )


def _cheapest(within: Sequence[Option], chosen: Option, margin: float) -> Option:
    """Return the cheapest option whose RI on validation is that of the chosen one but for a margin.

    Less than a tenth cheaper is not cheaper.
    """
    equal = [
        option
        for option in within
        if option.validation_ri >= chosen.validation_ri - margin and option.cost_units <= _CHEAPER * chosen.cost_units
    ]
    return min(equal, key=lambda option: (option.cost_units, -option.validation_ri), default=chosen)


def _same_grid(option: Option, chosen: Option) -> bool:
    """Tell whether an option's ratio is one that the chosen method could have had; the dense network has every one."""
    pruners = {option.pruner, chosen.pruner}
    return option.backbone == chosen.backbone and (len(pruners) == 1 or DENSE in pruners)


def _edge(value: int | float, values: Sequence[int | float]) -> Edge:
    """Say where a value is among those of a grid."""
    if min(values) == max(values):
        return "only"
    return "smallest" if value == min(values) else "largest" if value == max(values) else "inside"


def _agreement(chosen: Option, request: Request, unit: Unit, spots: Iterable[SweetSpot]) -> Agreement | None:
    """Find the run's sweet spots that asked for the same of the same method; the least stable one speaks for them."""
    limits = {"budget": request.budget, "target": request.target_accuracy}
    asked = [(rule, value) for rule, value in limits.items() if value is not None]
    if len(asked) != 1 or not request.n is request.latency_ms is None or chosen.backbone != unit.backbone:
        return None
    same = [
        Agreement(spot.modal_share, spot.replicates)
        for spot in spots
        if (spot.rule, spot.value) == asked[0]
        and (spot.backbone, spot.aggregator, spot.training) == (chosen.backbone, chosen.aggregator, chosen.training)
        and chosen.pruner in {spot.pruner, DENSE}
        and (spot.protocol, spot.ratio, spot.n) == (chosen.protocol, chosen.ratio, chosen.n)
    ]
    return min((one for one in same if one.replicates > 0), key=lambda one: one.share, default=None)


def _method(option: Option) -> tuple[str, str, str, str]:
    return option.backbone, option.pruner, option.aggregator, option.training


def _ordered(within: Sequence[Option], request: Request) -> list[Option]:
    """Return the choice of every method, the best first."""
    methods: dict[tuple[str, str, str, str], dict[Point, Option]] = {}
    for option in within:
        point = Point(option.ratio, option.n, option.cost_units, option.validation_ri, option.validation_n_accuracy)
        methods.setdefault(_method(option), {})[point] = option
    if request.target_accuracy is not None:
        rule = Rule("target", request.target_accuracy)
    else:
        rule = Rule("budget", math.inf if request.budget is None else request.budget)
    choices = sweetspot.across({method: list(points) for method, points in methods.items()}, rule)
    return [methods[method][choice.point] for method, choice in choices if choice.point is not None]


def _on_test(option: Option, target: float | None) -> Literal["reached", "mean", "missed"] | None:
    if target is None:
        return None
    if option.n_accuracy < target:
        return "missed"
    return "reached" if option.n_accuracy_low >= target else "mean"


def _excess(option: Option, request: Request) -> dict[str, float]:
    """Return by how much an option misses each limit that it misses, relative to the limit.

    Two are not asked for: RI is above 0 beyond chance, and a time that is bounded was measured on a quiet machine.
    """
    spent: dict[str, tuple[float, float | None]] = {
        "budget": (option.cost_units, request.budget),
        "latency_ms": (option.timing.ms_per_tuple if option.timing else math.inf, request.latency_ms),
    }
    excess = {
        name: value / limit - 1
        for name, (value, limit) in spent.items()
        if limit is not None and value > limit * _SLACK
    }
    target = request.target_accuracy
    if target is not None and option.validation_n_accuracy < target:
        excess["target_accuracy"] = 1 - option.validation_n_accuracy / target
    if option.guessing:
        excess["guessing"] = -min(option.ri_low, option.validation_ri_low)
    if request.latency_ms is not None and option.timing is not None and option.timing.contended:
        excess["contended"] = (option.timing.contention or math.inf) - BUSY
    return excess


def _miss(considered: Sequence[Option], request: Request) -> str:
    """Say what was asked for and which option comes nearest to it."""
    nearest = min(considered, key=lambda option: sum(_excess(option, request).values()))
    timing, missed = nearest.timing, _excess(nearest, request)
    texts = {
        "budget": (f"{nearest.cost_units:.4g} dense passes", f"at most {request.budget or 0:g}"),
        "latency_ms": (
            f"{timing.ms_per_tuple:.4g} ms" if timing else "no latency",
            f"at most {request.latency_ms or 0:g}",
        ),
        "target_accuracy": (
            f"{percent(nearest.validation_n_accuracy)} right on validation",
            f"at least {percent(request.target_accuracy or 0.0)}",
        ),
    }
    asked = ", ".join(f"{name} {texts[name][1]}" for name in texts if getattr(request, name) is not None)
    gaps = [f"{texts[name][0]} where {texts[name][1]} was asked for" for name in texts if name in missed]
    gaps += [text for name, text in _unasked(nearest).items() if name in missed]
    kept = [texts[name][0] for name in texts if getattr(request, name) is not None and name not in missed]
    advice = []
    if "contended" in missed:
        advice.append("measure again on a quiet machine (delete artifacts/latency in the store, run the grid again)")
    if missed.keys() - {"contended"}:
        advice.append("relax a limit or run a wider grid")
    return (
        f"expected an option with {asked}, got none of {len(considered)}; the nearest miss is {describe(nearest)} "
        f"with {' and '.join(gaps)}{' (' + ', '.join(kept) + ')' if kept else ''}; {', and '.join(advice)}"
    )


def _unasked(option: Option) -> dict[str, str]:
    """Say what speaks against an option whatever is asked for."""
    ratio = option.timing.contention if option.timing else None
    return {
        "guessing": f"an RI that is no better than guessing ({intervals(option)})",
        "contended": f"a time that was measured on a busy machine ({ratio or math.inf:.2f} times as long on the wall "
        "as on the processor)",
    }


def intervals(option: Option) -> str:
    """Write the RI of an option on both splits."""
    return (
        f"{number(option.validation_ri)} [{number(option.validation_ri_low)}, {number(option.validation_ri_high)}] on "
        f"validation, {number(option.ri)} [{number(option.ri_low)}, {number(option.ri_high)}] on test"
    )


def describe(option: Option) -> str:
    """Name an option."""
    network = "the dense network" if option.pruner == DENSE else network_name(option.pruner, option.ratio)
    return f"{method_name(option.aggregator, option.training)} on {network} of {option.backbone}, n = {option.n}"
