"""The recommendation: chosen on validation by the rules of the sweet spot, reported on test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sharedlabel import sweetspot
from sharedlabel.choosing.candidates import DENSE, Option, Request, Unit, options
from sharedlabel.choosing.differences import Contrast, contrast
from sharedlabel.errors import DataError
from sharedlabel.results import Results
from sharedlabel.sweetspot import Point, Rule

_SLACK = 1 + 1e-9  # forgives the rounding of sums


@dataclass(frozen=True)
class Recommendation:
    """What to deploy, what it costs, what it gives and what it gives up.

    Attributes:
        data: data set name.
        protocol: `iid` or `grouped`.
        seeds: training seeds of the recommended option.
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
        runner_up: against the choice of the next best method (backbone, pruner, aggregator and training) under the same
            request; None if no other method has one.
        considered: options that were looked at, limits apart.
        qualified: how many of them satisfy every limit.
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
    runner_up: Contrast | None
    considered: int
    qualified: int


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
    found = [option for option in everything if request.n in {None, option.n}]
    within = [option for option in found if not _excess(option, request)]
    if not within:
        raise DataError(_miss(found, request))
    ordered = _ordered(within, request)
    chosen, rest = ordered[0], ordered[1:]
    by_place = {option.place: option for option in everything}
    dense = by_place.get(chosen.place._replace(pruner=DENSE, ratio=1.0), chosen)
    best = max(everything, key=lambda option: (option.validation_ri, -option.cost_units))
    other = next((option for option in rest if _method(option) != _method(chosen)), None)

    def against(option: Option | None) -> Contrast | None:
        return None if option in {None, chosen} else contrast(chosen, option, protocol, results.comparisons)

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
        runner_up=against(other),
        considered=len(found),
        qualified=len(within),
    )


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
    """Return by how much an option misses each limit that it misses, relative to the limit."""
    spent: dict[str, tuple[float, float | None]] = {
        "budget": (option.cost_units, request.budget),
        "latency_ms": (option.timing.ms_per_tuple if option.timing else math.inf, request.latency_ms),
    }
    found = {
        name: value / limit - 1
        for name, (value, limit) in spent.items()
        if limit is not None and value > limit * _SLACK
    }
    target = request.target_accuracy
    if target is not None and option.validation_n_accuracy < target:
        found["target_accuracy"] = 1 - option.validation_n_accuracy / target
    return found


def _miss(found: Sequence[Option], request: Request) -> str:
    """Say what was asked for and which option comes nearest to it."""
    nearest = min(found, key=lambda option: sum(_excess(option, request).values()))
    timing = nearest.timing
    texts = {
        "budget": (f"{nearest.cost_units:.4g} dense passes", f"at most {request.budget or 0:g}"),
        "latency_ms": (
            f"{timing.ms_per_tuple:.4g} ms" if timing else "no latency",
            f"at most {request.latency_ms or 0:g}",
        ),
        "target_accuracy": (
            f"n-accuracy {nearest.validation_n_accuracy:.4f} on validation",
            f"at least {request.target_accuracy or 0:g}",
        ),
    }
    missed = _excess(nearest, request)
    asked = ", ".join(f"{name} {texts[name][1]}" for name in texts if getattr(request, name) is not None)
    gaps = " and ".join(f"{texts[name][0]} where {texts[name][1]} was asked for" for name in missed)
    kept = [texts[name][0] for name in texts if getattr(request, name) is not None and name not in missed]
    return (
        f"expected an option with {asked}, got none of {len(found)}; the nearest miss is {describe(nearest)} "
        f"with {gaps}{' (' + ', '.join(kept) + ')' if kept else ''}; relax a limit or run a wider grid"
    )


def describe(option: Option) -> str:
    """Name an option."""
    how = "" if option.training == "frozen" else f" ({option.training})"
    network = "the dense network" if option.pruner == DENSE else f"{option.pruner} {option.ratio:g}x"
    return f"{option.aggregator}{how} on {network} of {option.backbone}, n = {option.n}"
