"""Over seeds and methods: means with intervals, paired comparisons, sweet spots and their stability."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sharedlabel import rng, sweetspot
from sharedlabel.config import EvaluationConfig, SweetSpotConfig
from sharedlabel.evaluation import accuracy_and_ri
from sharedlabel.inputs import SCORED_ROLES, Data
from sharedlabel.metrics.information import label_entropy
from sharedlabel.metrics.intervals import holm, interval
from sharedlabel.metrics.uncertainty import Estimate, multiplier_bootstrap, paired_difference, seed_average
from sharedlabel.results import Comparison, Row, Summary, SweetSpot
from sharedlabel.sweetspot import Point, Rule
from sharedlabel.types import Role, Tuples

VERSION = 1
LEVEL = 0.05
ROUNDING = 1e-6  # stored scores are float32: smaller mean differences, in bits or shares, are none
EXACT = "exact"
Identity = tuple[str, str, float, str, str, str]


@dataclass(frozen=True)
class Method:
    """A finished cell: its rows, and its scores per tuple."""

    rows: tuple[Row, ...]
    scores: Mapping[str, Tensor]

    @property
    def identity(self) -> Identity:
        """Everything that names the method except the seed."""
        row = self.rows[0]
        return row.backbone, row.pruner, row.ratio, row.aggregator, row.training, row.protocol


@dataclass(frozen=True)
class _Seeds:
    """One method over its seeds on one split: scores `[s p t 2k]` (right or wrong, then bits) and their means."""

    rows: tuple[tuple[Row, ...], ...]
    scores: Tensor
    estimate: Estimate
    entropy: float
    instances: int

    @property
    def n(self) -> list[int]:
        return [row.n for row in self.rows[0]]

    def accuracy(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean n-accuracy and its interval, per n."""
        return accuracy_and_ri(self.estimate, self.n, self.instances, self.entropy)[0]

    def ri(self) -> tuple[Tensor, Tensor, Tensor]:
        """Mean RI and its interval, per n."""
        return accuracy_and_ri(self.estimate, self.n, self.instances, self.entropy)[1]

    def mean(self, column: str) -> list[float]:
        """Mean over seeds of a row's column, per n."""
        return [statistics.fmean(getattr(row, column) for row in seeds) for seeds in zip(*self.rows, strict=True)]

    def points(self) -> list[Point]:
        """The method's point at each n, for the sweet-spot rules."""
        values = zip(
            self.n, self.mean("cost_dense_passes"), self.ri()[0].tolist(), self.accuracy()[0].tolist(), strict=True
        )
        return [Point(self.rows[0][0].ratio, n, cost, ri, accuracy) for n, cost, ri, accuracy in values]


def summarize(
    methods: Sequence[Method], data: Data, evaluation: EvaluationConfig, rules: SweetSpotConfig
) -> tuple[list[Summary], list[Comparison], list[SweetSpot]]:
    """Summarise finished cells.

    Args:
        methods: one per cell.
        data: the splits that the tuples index.
        evaluation: how the tuples were drawn.
        rules: parameters of the sweet-spot rules.
    """
    drawn: dict[tuple[str, str], Tuples] = {
        (role, protocol): data.tuples(role, protocol, max(evaluation.n), evaluation.partitions, evaluation.seed)
        for role in SCORED_ROLES
        for protocol in evaluation.protocols
    }
    by_role = {role: _over_seeds(methods, role, drawn, data) for role in SCORED_ROLES}
    summaries = [record for role in SCORED_ROLES for seeds in by_role[role].values() for record in _summaries(seeds)]
    comparisons = _comparisons(by_role["test"], drawn, data)
    return summaries, comparisons, list(_sweet_spots(by_role["validation"], by_role["test"], rules, evaluation.seed))


def _over_seeds(
    methods: Sequence[Method], role: Role, drawn: Mapping[tuple[str, str], Tuples], data: Data
) -> dict[Identity, _Seeds]:
    grouped: dict[Identity, list[Method]] = {}
    for method in methods:
        grouped.setdefault(method.identity, []).append(method)
    entropy, instances = label_entropy(data.prior.log()), len(data.splits[role])
    found = {}
    for identity, seeds in grouped.items():
        scores = torch.stack([_scores(method, role) for method in seeds])
        rows = tuple(tuple(row for row in method.rows if row.split == role) for method in seeds)
        prefixes = [row.n for row in rows[0]]
        protocol = identity[-1]
        estimate = seed_average(scores, drawn[role, protocol], prefixes * 2, instances, data.groups(role, protocol))
        found[identity] = _Seeds(rows, scores, estimate, entropy, instances)
    return found


def _scores(method: Method, role: Role) -> Tensor:
    return torch.cat([method.scores[f"{role}.correct"].double(), method.scores[f"{role}.information"].double()], dim=2)


def _summaries(seeds: _Seeds) -> Iterator[Summary]:
    accuracy, ri = seeds.accuracy(), seeds.ri()
    for index, row in enumerate(seeds.rows[0]):
        same = [rows[index] for rows in seeds.rows]
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
            n_accuracy=float(accuracy[0][index]),
            n_accuracy_low=float(accuracy[1][index]),
            n_accuracy_high=float(accuracy[2][index]),
            ri=float(ri[0][index]),
            ri_low=float(ri[1][index]),
            ri_high=float(ri[2][index]),
            ri_raw=statistics.fmean(r.ri_raw for r in same),
            calibration_error=statistics.fmean(r.calibration_error for r in same),
            measured_latency_ms=statistics.median(r.measured_latency_ms for r in same),
        )


def _comparisons(
    found: Mapping[Identity, _Seeds], drawn: Mapping[tuple[str, str], Tuples], data: Data
) -> list[Comparison]:
    """Compare all pairs of aggregators on a backbone, later minus earlier; Holm over each metric and protocol."""
    records: list[Comparison] = []
    same_backbone: dict[tuple[str, str, float, str, str], list[tuple[str, _Seeds]]] = {}
    for (backbone, pruner, ratio, aggregator, training, protocol), seeds in found.items():
        if aggregator != EXACT:
            same_backbone.setdefault((backbone, pruner, ratio, training, protocol), []).append((aggregator, seeds))
    for (_, _, _, _, protocol), entries in same_backbone.items():
        for (reference, first), (method, second) in itertools.combinations(entries, 2):
            records += _compare(
                method, second, reference, first, drawn["test", protocol], data.groups("test", protocol)
            )
    families: dict[tuple[str, str], list[int]] = {}
    for position, record in enumerate(records):
        families.setdefault((record.metric, record.protocol), []).append(position)
    for positions in families.values():
        adjusted = holm(torch.tensor([records[position].p_value for position in positions], dtype=torch.float64))
        for position, p_holm in zip(positions, adjusted.tolist(), strict=True):
            records[position] = _with_verdict(records[position], p_holm)
    return records


def _compare(
    method: str, seeds: _Seeds, reference: str, other: _Seeds, drawn: Tuples, groups: Tensor | None
) -> Iterator[Comparison]:
    found = paired_difference(seeds.scores, other.scores, drawn, seeds.n * 2, seeds.instances, groups)
    low, high = interval(found.estimate.mean, found.estimate.se, found.estimate.degrees_of_freedom)
    p_values = torch.where(found.estimate.mean.abs() < ROUNDING, 1.0, found.p_value)
    for column, (metric, row) in enumerate(itertools.product(("n_accuracy", "ri"), seeds.rows[0])):
        scale = seeds.entropy if metric == "ri" else 1.0
        yield Comparison(
            data=row.data,
            backbone=row.backbone,
            pruner=row.pruner,
            ratio=row.ratio,
            training=row.training,
            protocol=row.protocol,
            n=row.n,
            method=method,
            reference=reference,
            metric=metric,  # type: ignore[arg-type]
            difference=float(found.estimate.mean[column]) / scale,
            low=float(low[column]) / scale,
            high=float(high[column]) / scale,
            p_value=float(p_values[column]),
            p_holm=1.0,
            verdict="tied",
        )


def _with_verdict(record: Comparison, p_holm: float) -> Comparison:
    verdict = "tied" if p_holm >= LEVEL else "better" if record.difference > 0 else "worse"
    return Comparison(**{**vars(record), "p_holm": p_holm, "verdict": verdict})


def _sweet_spots(
    validation: Mapping[Identity, _Seeds], test: Mapping[Identity, _Seeds], rules: SweetSpotConfig, seed: int
) -> Iterator[SweetSpot]:
    """Apply every rule to every method: a pruner and an aggregator, with the dense network as its ratio 1."""
    methods: dict[tuple[str, str, str, str, str], list[Identity]] = {}
    for backbone, pruner, ratio, aggregator, training, protocol in validation:
        if aggregator != EXACT:
            methods.setdefault((backbone, pruner, aggregator, training, protocol), []).append(
                (backbone, pruner, ratio, aggregator, training, protocol)
            )
    for (backbone, pruner, aggregator, training, protocol), identities in methods.items():
        dense: Identity = (backbone, "none", 1.0, aggregator, training, protocol)
        if pruner == "none" and len({name for _, name, _, _, _ in methods}) > 1:
            continue
        grid = [dense, *(identity for identity in identities if identity != dense)]
        yield from _choices([validation[i] for i in grid], [test[i] for i in grid], rules, pruner, seed)


def _choices(
    validation: Sequence[_Seeds], test: Sequence[_Seeds], rules: SweetSpotConfig, pruner: str, seed: int
) -> Iterator[SweetSpot]:
    points = [point for seeds in validation for point in seeds.points()]
    reported = {(point.ratio, point.n): (seeds, index) for seeds in test for index, point in enumerate(seeds.points())}
    drawn = multiplier_bootstrap(
        [seeds.estimate for seeds in validation], rules.replicates, rng.generator(seed, "replicates")
    )
    accuracy, bits = drawn.chunk(2, dim=2)  # [replicates, ratios, n]
    ri = np.asarray((1 + bits / validation[0].entropy).flatten(1))
    row = test[0].rows[0][0]
    for rule in _rules(rules, validation[0].n):
        choice = sweetspot.choose(points, rule)
        stability = sweetspot.interior_share(points, rule, ri, np.asarray(accuracy.flatten(1)))
        place = (choice.point.ratio, choice.point.n) if choice.point else None
        found = _at(*reported[place]) if place else {}
        dense = _at(*reported[1.0, place[1]]) if place else {}
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
                name: found.get(name)
                for name in ("ri", "ri_low", "ri_high", "n_accuracy", "n_accuracy_low", "n_accuracy_high")
            },
            dense_ri=dense.get("ri"),
            dense_n_accuracy=dense.get("n_accuracy"),
            interior=choice.interior,
            interior_share=stability.interior,
            modal_share=max(stability.chosen.values(), default=0.0),
            replicates=stability.replicates,
            reason=choice.reason,
        )


def _at(seeds: _Seeds, index: int) -> dict[str, float]:
    values: dict[str, float] = {}
    for name, (mean, low, high) in (("ri", seeds.ri()), ("n_accuracy", seeds.accuracy())):
        values |= {name: float(mean[index]), f"{name}_low": float(low[index]), f"{name}_high": float(high[index])}
    return values


def _rules(rules: SweetSpotConfig, n: Sequence[int]) -> Iterator[Rule]:
    for size in n:
        yield Rule("retain", float(rules.retain), size)
    for budget in rules.budgets:
        yield Rule("budget", float(budget))
    yield Rule("target", float(rules.target))
    yield Rule("knee")
    yield Rule("marginal", float(rules.marginal))
