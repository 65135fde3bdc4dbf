"""The runs that compare methods: one for each method, with curves against the ratio, and one for the whole grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sharedlabel.config import digest
from sharedlabel.config.names import DENSE
from sharedlabel.records import TABLES, AdaptivePoint, Comparison, Identity, Results, Summary, SweetSpot
from sharedlabel.tracking.about import About, part
from sharedlabel.tracking.runs import Curve, Files, Run, Scalar

BY_RATIO = "by_ratio"  # what curves against the ratio are called by
# What is drawn of a method at a ratio and n; intervals follow what they are of.
MEASURES = ("ri", "ri_low", "ri_high", "n_accuracy", "n_accuracy_low", "n_accuracy_high", "cost_dense_passes")
_CHOICE = ("ratio", "n", "cost_dense_passes", "validation_ri", "ri", "n_accuracy")  # of a sweet spot
_STEPS = {f"{BY_RATIO}/*": "ratio", "adaptive/*": "adaptive/instances"}


def of_methods(results: Results, about: About, grid: str) -> Iterator[Run]:
    """Yield a run for every method of a grid, a method being all its ratios.

    Its history holds RI, n-accuracy and cost on test against the ratio, for every n (`by_ratio/ri@8`), with the ends of
    their intervals, and the difference to the reference with the ends of the interval that its verdict is read off; and
    what adaptive numbers of instances give (`adaptive/threshold@4x/ri` against `adaptive/instances`). Its summary holds
    what each rule chooses (`sweet_spot/budget=1/ratio`).

    Args:
        results: of the whole grid.
        about: the experiment.
        grid: identifier of the grid in its present extent.
    """
    tests = [one for one in results.summaries if one.split == "test"]
    pruned = any(one.pruner != DENSE for one in tests)
    for method in dict.fromkeys(Identity.of(one)._replace(ratio=1.0) for one in tests):
        if pruned and method.pruner == DENSE:  # it is a point of every other one
            continue
        own = [one for one in tests if Identity.of(one)._replace(ratio=1.0) == method]
        dense = [one for one in tests if Identity.of(one) == method.dense and method.pruner != DENSE]
        differences = _differences(results.comparisons, method, about)
        stopped = [
            one for one in results.adaptive if Identity.of(one) in (method._replace(ratio=one.ratio), method.dense)
        ]
        spots = [one for one in results.sweet_spots if _place(one) == method]
        settings = about.settings(own[0])
        settings.pop("ratio")
        name = about.method(own[0])
        yield Run(
            digest([grid, *method])[:16],
            f"{about.experiment}: {name}",
            "method",
            settings | {"method": name, "grid": grid},
            about.tags(own[0]),
            tuple(Curve(name, step, "none") for name, step in _STEPS.items()),
            (*_against_ratio([*dense, *own], differences), *_stopped(stopped)),
            {f"{rule_of(spot)}/{name}": getattr(spot, name) for spot in spots for name in _CHOICE},
        )


def of_grid(results: Results, plots: Mapping[str, str], files: Files | None, about: About, grid: str) -> Run:
    """Return the summary run of a grid: what each rule chooses of each method, the Pareto front, tables and plots.

    Args:
        results: of the whole grid.
        plots: SVG texts by name.
        files: what the run has written.
        about: the experiment.
        grid: identifier of the grid in its present extent.
    """
    front = _front(results)
    return Run(
        grid,
        f"{about.experiment}-summary",
        "summary",
        {**results.config, "experiment": about.experiment, "grid": grid, "provenance": dict(results.provenance)},
        tuple(dict.fromkeys(one.data[:64] for one in results.rows)),
        tuple(Curve(f"pareto/{name}", "pareto/cost_dense_passes", "none") for name in ("ri", "n", "ratio")),
        tuple({f"pareto/{name}": value for name, value in point.items()} for point in front),
        {"cells": results.cells, "failures": len(results.failures)} | _chosen(results.sweet_spots, about),
        {table: records for table in TABLES if (records := getattr(results, table))},
        plots,
        files,
    )


def extent(results: Results, trial: str = "") -> str:
    """Return the identifier of a grid in its present extent: its configuration, its cells, and those that failed.

    Args:
        results: of the whole grid.
        trial: of a sweep that they are.
    """
    cells = dict.fromkeys(row.cell for row in results.rows)
    failed = sorted(failure.cell for failure in results.failures)
    return digest([results.config, list(cells), failed, trial])[:16]


def rule_of(spot: SweetSpot) -> str:
    """Return what a rule of the sweet spot is called in names of metrics.

    >>> class Spot:
    ...     rule, value, rule_n = "retain", 0.98, 8
    >>> rule_of(Spot)
    'sweet_spot/retain=0_98@8'
    """
    value = "" if spot.value is None else f"={spot.value:g}"
    n = "" if spot.rule_n is None else f"@{spot.rule_n}"
    return f"sweet_spot/{part(spot.rule + value + n)}"


def _place(spot: SweetSpot) -> Identity:
    return Identity(spot.backbone, spot.pruner, 1.0, spot.aggregator, spot.training, spot.protocol)


def _differences(
    comparisons: Iterable[Comparison], method: Identity, about: About
) -> dict[tuple[float, int], list[Comparison]]:
    """Return the comparisons of a method with the reference aggregator, by ratio and n."""
    reference = about.config.get("comparison", {}).get("reference")
    found: dict[tuple[float, int], list[Comparison]] = {}
    for one in comparisons:
        like = Identity.of(one)
        own = like in (method._replace(ratio=one.ratio), method.dense)
        if own and one.axis == "aggregator" and one.reference == reference:
            found.setdefault((one.ratio, one.n), []).append(one)
    return found


def _against_ratio(
    summaries: Sequence[Summary], differences: Mapping[tuple[float, int], Sequence[Comparison]]
) -> Iterator[dict[str, Scalar]]:
    for ratio in sorted({one.ratio for one in summaries}):
        point: dict[str, Scalar] = {"ratio": ratio}
        for one in (one for one in summaries if one.ratio == ratio):
            point |= {f"{BY_RATIO}/{name}@{one.n}": getattr(one, name) for name in MEASURES}
            for pair in differences.get((ratio, one.n), ()):
                start = f"{BY_RATIO}/{pair.metric}_difference"
                ends = {f"{start}_low@{one.n}": pair.low_adjusted, f"{start}_high@{one.n}": pair.high_adjusted}
                point |= {f"{start}@{one.n}": pair.difference, **ends}
        yield point


def _stopped(points: Iterable[AdaptivePoint]) -> Iterator[dict[str, Scalar]]:
    for point in sorted(points, key=lambda one: (one.ratio, one.rule, one.instances)):
        start = f"adaptive/{point.rule}@{part(f'{point.ratio:g}x')}"
        yield {"adaptive/instances": point.instances, f"{start}/ri": point.ri, f"{start}/n_accuracy": point.n_accuracy}


def _chosen(spots: Sequence[SweetSpot], about: About) -> dict[str, Scalar]:
    """Return what each rule chooses of every method, and of the best one, which is chosen on validation, too."""
    found: dict[str, Scalar] = {}
    for spot in spots:
        named = f"{rule_of(spot)}/{part(about.method(spot))}"
        found |= {f"{named}/{name}": getattr(spot, name) for name in _CHOICE}
    for rule in dict.fromkeys(map(rule_of, spots)):
        met = [spot for spot in spots if rule_of(spot) == rule and spot.validation_ri is not None]
        if met:
            best = max(met, key=lambda spot: (spot.validation_ri or 0.0, about.method(spot)))
            found |= {f"{rule}/best/{name}": getattr(best, name) for name in _CHOICE}
            found[f"{rule}/best/method"] = about.method(best)
            if best.rule == "budget" and best.value == 1:  # a name without signs, for sweeps to look at
                found["best_validation_ri"] = best.validation_ri
    return found


def _front(results: Results) -> list[dict[str, Any]]:
    """Return the Pareto front of all methods, ratios and n: chosen on validation, with the RI of test."""
    validated = [one for one in results.summaries if one.split == "validation"]
    tests = {(*Identity.of(one), one.data, one.n): one for one in results.summaries if one.split == "test"}
    front, best = [], 0.0
    for one in sorted(validated, key=lambda one: (one.cost_dense_passes, -one.ri)):
        if one.ri > best:
            best, reported = one.ri, tests[(*Identity.of(one), one.data, one.n)]
            cost = reported.cost_dense_passes
            front.append({"cost_dense_passes": cost, "ri": reported.ri, "n": one.n, "ratio": one.ratio})
    return front
