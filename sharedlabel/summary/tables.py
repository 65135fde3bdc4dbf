"""Over seeds and methods: means with intervals, paired comparisons, ranks, sweet spots and their stability."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config.names import DENSE, EXACT, Protocol
from sharedlabel.config.sections import ComparisonConfig, EvaluationConfig, SweetSpotConfig
from sharedlabel.metrics.uncertainty import draw_multipliers, replicate, seed_average
from sharedlabel.records import Comparison, Identity, Pooled, Rank, Row, Summary, SweetSpot, Wins
from sharedlabel.scoring.data import SCORED_ROLES, Data
from sharedlabel.scoring.scores import accuracy_and_ri
from sharedlabel.summary import sweetspot
from sharedlabel.summary.comparisons import compare
from sharedlabel.summary.ranks import count_wins, rank
from sharedlabel.summary.seeds import ScoredCell, SeedScores, Split, over_seeds
from sharedlabel.summary.sweetspot import Point, Rule

VERSION = 3


@dataclass(frozen=True)
class Summarized:
    """What is said of all finished cells together; the fields are those of `records.Tables`."""

    summaries: list[Summary]
    comparisons: list[Comparison]
    pooled: list[Pooled]
    ranks: list[Rank]
    wins: list[Wins]
    sweet_spots: list[SweetSpot]


class _Interval(NamedTuple):
    """Means and the ends of their intervals, per n; lists, since small tensors between large ones fragment the heap."""

    mean: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True)
class _Estimated:
    """One method over its seeds on one split: mean n-accuracy and RI with their intervals, per n.

    Attributes:
        rows: per seed, then per n.
        accuracy: mean, low and high.
        ri: likewise.
        replicates: of n-accuracy at every n and then of RI at every n, `[replicates, 2k]`; None where none are needed.
    """

    rows: tuple[tuple[Row, ...], ...]
    accuracy: _Interval
    ri: _Interval
    replicates: Tensor | None

    @property
    def n(self) -> list[int]:
        return [row.n for row in self.rows[0]]

    def mean(self, column: str) -> list[float]:
        """Mean over seeds of a row's column, per n."""
        return [statistics.fmean(getattr(row, column) for row in seeds) for seeds in zip(*self.rows, strict=True)]

    def points(self) -> list[Point]:
        """The method's point at each n, for the sweet-spot rules."""
        values = zip(self.n, self.mean("cost_dense_passes"), self.ri.mean, self.accuracy.mean, strict=True)
        return [Point(self.rows[0][0].ratio, n, cost, ri, accuracy) for n, cost, ri, accuracy in values]


def summarize(
    cells: Sequence[ScoredCell],
    data: Data,
    evaluation: EvaluationConfig,
    rules: SweetSpotConfig,
    asked: ComparisonConfig = ComparisonConfig(),  # noqa: B008 (frozen)
) -> Summarized:
    """Summarise finished cells.

    Args:
        cells: of one grid, each of the methods with the same seeds.
        data: the splits that the tuples index.
        evaluation: how the tuples were drawn.
        rules: parameters of the sweet-spot rules.
        asked: the primary endpoint, the reference and the margin of comparisons.
    """
    validation, test = (over_seeds(cells, role) for role in SCORED_ROLES)
    on_validation, on_test = (
        {protocol: Split.of(data, role, protocol, evaluation) for protocol in evaluation.protocols}
        for role in SCORED_ROLES
    )
    chosen_on = _estimates(validation, on_validation, rules.replicates, evaluation.seed)
    reported_on = _estimates(test, on_test, 0, evaluation.seed)
    comparisons, pooled = compare(test, on_test, asked)
    return Summarized(
        summaries=[record for one in (*chosen_on.values(), *reported_on.values()) for record in _summaries(one)],
        comparisons=comparisons,
        pooled=pooled,
        ranks=rank(test, on_test, pooled, asked),
        wins=count_wins(comparisons),
        sweet_spots=list(_sweet_spots(chosen_on, reported_on, rules)),
    )


def _estimates(
    methods: Mapping[Identity, SeedScores], splits: Mapping[Protocol, Split], replicates: int, seed: int
) -> dict[Identity, _Estimated]:
    """Estimate every method, and draw replicates that stay paired: each unit has one multiplier in all methods."""
    seeds = max((len(one.rows) for one in methods.values()), default=1)
    multipliers = {
        protocol: draw_multipliers(replicates, _units(split, seeds), rng.generator(seed, "replicates"), seeds)
        for protocol, split in splits.items()
        if replicates
    }
    columns = max((2 * len(one.n) for one in methods.values()), default=0)
    drawn = torch.empty(len(methods), replicates, columns, dtype=torch.float64)
    return {
        identity: _estimate(scored, splits[identity.protocol], multipliers.get(identity.protocol), room)
        for (identity, scored), room in zip(methods.items(), drawn, strict=True)
    }


def _units(split: Split, seeds: int) -> int:
    """Count what can be drawn anew: images or groups, and training seeds if there are several."""
    images = split.instances if split.groups is None else len(split.groups.unique())
    return images + (seeds if seeds > 1 else 0)


def _estimate(scored: SeedScores, split: Split, multipliers: Tensor | None, room: Tensor) -> _Estimated:
    """Estimate one method; the influence of every image is large, so only the replicates made of it are kept."""
    estimate = seed_average(scored.scores(), split.drawn, scored.n * 2, split.instances, split.groups)
    accuracy, ri = (
        _Interval(*(values.tolist() for values in triple))
        for triple in accuracy_and_ri(estimate, split.independent(scored.n), split.entropy)
    )
    if multipliers is None:
        return _Estimated(scored.rows, accuracy, ri, None)
    right, bits = replicate([estimate], multipliers)[:, 0].chunk(2, dim=1)
    torch.cat([right.clamp(0, 1), (1 + bits / split.entropy).clamp(max=1)], dim=1, out=room)
    return _Estimated(scored.rows, accuracy, ri, room)


def _summaries(estimated: _Estimated) -> Iterator[Summary]:
    accuracy, ri = estimated.accuracy, estimated.ri
    for index, row in enumerate(estimated.rows[0]):
        same = [rows[index] for rows in estimated.rows]
        measured = [r.measured_latency_ms for r in same if r.measured_latency_ms is not None]
        yield Summary(
            data=row.data,
            backbone=row.backbone,
            pruner=row.pruner,
            ratio=row.ratio,
            aggregator=row.aggregator,
            training=row.training,
            protocol=row.protocol,
            split=row.split,
            n=row.n,
            seeds=len(same),
            theoretical_speedup=statistics.fmean(r.theoretical_speedup for r in same),
            cost_dense_passes=statistics.fmean(r.cost_dense_passes for r in same),
            efficiency=statistics.fmean(r.efficiency for r in same),
            n_accuracy=accuracy.mean[index],
            n_accuracy_low=accuracy.low[index],
            n_accuracy_high=accuracy.high[index],
            ri=ri.mean[index],
            ri_low=ri.low[index],
            ri_high=ri.high[index],
            ri_raw=statistics.fmean(r.ri_raw for r in same),
            calibration_error=statistics.fmean(r.calibration_error for r in same),
            measured_latency_ms=statistics.median(measured) if measured else None,
        )


def _sweet_spots(
    validation: Mapping[Identity, _Estimated], test: Mapping[Identity, _Estimated], rules: SweetSpotConfig
) -> Iterator[SweetSpot]:
    """Apply every rule to every method: a pruner and an aggregator, with the dense network as its ratio 1."""
    methods: dict[tuple[str, str, str, str, Protocol], list[Identity]] = {}
    for identity in validation:
        backbone, pruner, _, aggregator, training, protocol = identity
        if aggregator != EXACT:
            methods.setdefault((backbone, pruner, aggregator, training, protocol), []).append(identity)
    for (_, pruner, *_), identities in methods.items():
        dense = identities[0].dense
        if pruner == DENSE and len({name for _, name, _, _, _ in methods}) > 1:
            continue
        grid = [dense, *(identity for identity in identities if identity != dense)]
        yield from _choices([validation[i] for i in grid], [test[i] for i in grid], rules, pruner)


def _choices(
    validation: Sequence[_Estimated], test: Sequence[_Estimated], rules: SweetSpotConfig, pruner: str
) -> Iterator[SweetSpot]:
    points = [point for ratio in validation for point in ratio.points()]
    chosen_on, reported = (
        {(point.ratio, point.n): (ratio, index) for ratio in split for index, point in enumerate(ratio.points())}
        for split in (validation, test)
    )
    drawn = torch.stack([ratio.replicates for ratio in validation if ratio.replicates is not None], dim=1)
    accuracy, ri = (np.asarray(part.flatten(1)) for part in drawn.chunk(2, dim=2))  # [replicates, ratios * n]
    row = test[0].rows[0][0]
    for rule in _rules(rules, validation[0].n):
        choice = sweetspot.choose(points, rule)
        stability = sweetspot.interior_share(points, rule, ri, accuracy)
        place = (choice.point.ratio, choice.point.n) if choice.point else None
        given = _at(*reported[place]) if place else {}
        dense = _at(*reported[1.0, place[1]]) if place else {}
        lowest = min(_at(*chosen_on[place])["ri_low"], given["ri_low"]) if place else 1.0
        yield SweetSpot(
            data=row.data,
            backbone=row.backbone,
            pruner=pruner,
            aggregator=row.aggregator,
            training=row.training,
            protocol=row.protocol,
            rule=rule.name,  # type: ignore[arg-type]
            value=rule.value,
            rule_n=rule.n,
            ratio=place[0] if place else None,
            n=place[1] if place else None,
            cost_dense_passes=choice.point.cost if choice.point else None,
            validation_ri=choice.point.ri if choice.point else None,
            **{
                name: given.get(name)
                for name in ("ri", "ri_low", "ri_high", "n_accuracy", "n_accuracy_low", "n_accuracy_high")
            },
            dense_ri=dense.get("ri"),
            dense_n_accuracy=dense.get("n_accuracy"),
            interior=choice.interior,
            interior_share=stability.interior,
            modal_share=stability.chosen.get(place, 0.0) if place else stability.undecided,
            replicates=stability.replicates,
            guessing=lowest <= 0,
            reason=choice.reason,
        )


def _at(estimated: _Estimated, index: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, (mean, low, high) in (("ri", estimated.ri), ("n_accuracy", estimated.accuracy)):
        values |= {name: mean[index], f"{name}_low": low[index], f"{name}_high": high[index]}
    return values


def _rules(rules: SweetSpotConfig, n: Sequence[int]) -> Iterator[Rule]:
    for size in n:
        yield Rule("retain", float(rules.retain), size)
    for budget in rules.budgets:
        yield Rule("budget", float(budget))
    yield Rule("target", float(rules.target))
    yield Rule("knee")
    yield Rule("marginal", float(rules.marginal))
