"""What is said of methods over their seeds: means, comparisons, ranks, sweet spots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from sharedlabel.files.plain import read_json
from sharedlabel.records.identity import Identity, Metric, OfMethod, OfSetting, OnSplit
from sharedlabel.records.rows import MainScores

Axis: TypeAlias = Literal["aggregator", "training", "pruner", "compression"]
Verdict: TypeAlias = Literal["better", "worse", "equivalent", "undecided", "no verdict"]
VERDICTS: tuple[Verdict, ...] = ("better", "equivalent", "undecided", "worse", "no verdict")
MIN_SEEDS = 5  # training seeds below which there is no verdict
OPPOSITE: dict[Verdict, Verdict] = {
    "better": "worse",
    "worse": "better",
    "equivalent": "equivalent",
    "undecided": "undecided",
    "no verdict": "no verdict",
}  # seen from the other side


@dataclass(frozen=True, kw_only=True)
class Summary(MainScores, OnSplit, OfMethod):
    """A method at one ratio and n, over its seeds; intervals are over seeds and images.

    Attributes:
        seeds: number of training seeds.
        theoretical_speedup: mean over seeds.
        cost_dense_passes: mean over seeds.
        efficiency: bits per dense pass, mean over seeds.
        ri_raw: mean over seeds.
        calibration_error: mean over seeds, after calibration.
        measured_latency_ms: median over the seeds that were measured; None if none was yet.
    """

    seeds: int
    theoretical_speedup: float
    cost_dense_passes: float
    efficiency: float
    ri_raw: float
    calibration_error: float
    measured_latency_ms: float | None


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """Method minus reference on the same tuples of test.

    Attributes:
        axis: along which the two differ: `aggregator`, `training` (against frozen first), `pruner` (at one ratio),
            `compression` (against dense).
        method: name on the axis.
        reference: name of the other on the axis.
        seeds: training seeds that both have.
        metric: `n_accuracy` or `ri`.
        difference: mean paired difference; positive when the method is better.
        low: lower end of its own 95% interval over seeds and images.
        high: upper end.
        low_adjusted: lower end of the interval that holds together with those of its whole family (95%).
        high_adjusted: upper end.
        p_value: two-sided, its own.
        p_adjusted: for the family, and no smaller than that of the pooled test that it stands behind.
        verdict: read off the adjusted interval: `equivalent` where it is inside the margin, else `better` or `worse`
            where it does not hold 0, else `undecided`; `no verdict` with fewer than five training seeds.
        correction: of p_adjusted, the adjusted interval and the verdict, in words.
    """

    axis: Axis
    method: str
    reference: str
    seeds: int
    metric: Metric
    difference: float
    low: float
    high: float
    low_adjusted: float
    high_adjusted: float
    p_value: float
    p_adjusted: float
    verdict: Verdict
    correction: str


@dataclass(frozen=True, kw_only=True)
class Comparison(PairedDifference, OfMethod):
    """Two methods that differ along one axis, on the same tuples: method minus reference, on test.

    `backbone`, `pruner`, `ratio`, `aggregator` and `training` are those of the method; those of the reference are the
    same but for the axis.

    Attributes:
        n: instances per tuple.
    """

    n: int

    @property
    def pair(self) -> tuple[Identity, Identity]:
        """The method and its reference."""
        method = Identity.of(self)
        if self.axis == "compression":
            return method, method.dense
        return method, method._replace(**{self.axis: self.reference})  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Pooled(PairedDifference, OfSetting):
    """Two methods over all cells where both were tried, on the same tuples: method minus reference, on test.

    Along the axis `aggregator` the scores of each tuple are averaged over all networks of a backbone (the dense one
    included), along `training` over networks and aggregators, along `pruner` over ratios and aggregators, along
    `compression` over aggregators.

    Attributes:
        endpoint: whether this is the primary question of the pair, which opens all its other comparisons.
        n: instances per tuple; empty for the mean over all n.
        cells: how many cells of each method the scores are averaged over.
    """

    endpoint: bool
    n: int | None
    cells: int


@dataclass(frozen=True, kw_only=True)
class Rank(OfSetting):
    """The place of an aggregator among all of a backbone, over all its networks, on test. A rank is an interval.

    Attributes:
        n: instances per tuple; empty for the mean over all n.
        endpoint: whether this is the primary endpoint.
        aggregator: label of the aggregator.
        networks: how many compressed networks (the dense one included) the scores are averaged over.
        seeds: training seeds; with fewer than five no difference is shown, and every rank is possible.
        metric: `n_accuracy` or `ri`.
        mean: mean score over the networks.
        low: lower end of its interval over seeds and images.
        high: upper end.
        rank_best: 1 + number of aggregators shown to be better, all pairs compared at once (Bonferroni).
        rank_worst: number of aggregators - number shown to be worse.
        alike: names of the aggregators not shown to differ, best first, as a JSON list.
    """

    n: int | None
    endpoint: bool
    aggregator: str
    networks: int
    seeds: int
    metric: Metric
    mean: float
    low: float
    high: float
    rank_best: int
    rank_worst: int
    alike: str

    def alike_names(self) -> frozenset[str]:
        """Return the names in `alike`; results of before have commas between them."""
        try:
            names = read_json(self.alike)
        except ValueError:
            return frozenset(filter(None, self.alike.split(",")))
        return frozenset(map(str, names)) if isinstance(names, list) else frozenset()


@dataclass(frozen=True, kw_only=True)
class Wins(OfSetting):
    """Verdicts on an aggregator against another one, counted over the networks of a backbone, on test.

    The counts are of dependent comparisons: networks share their images and seeds.

    Attributes:
        n: instances per tuple.
        method: aggregator.
        reference: the other aggregator.
        metric: `n_accuracy` or `ri`.
        wins: networks on which the method is better (see `comparisons`).
        equivalent: networks on which the difference is within the margin.
        undecided: networks on which nothing is shown, for want of seeds or images.
        losses: networks on which it is worse.
    """

    n: int
    method: str
    reference: str
    metric: Metric
    wins: int
    equivalent: int
    undecided: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class SweetSpot(OfSetting):
    """A chosen compression: by which rule, where, and what it gives on test.

    Attributes:
        pruner: label of the pruner.
        aggregator: label of the aggregator.
        rule: `retain`, `budget`, `target`, `knee` or `marginal`.
        value: the rule's parameter (rho, dense passes, n-accuracy, none, RI per doubling); None for `knee`.
        rule_n: the n at which the rule was applied; None where the rule chooses n itself.
        ratio: chosen ratio, or None when nothing qualifies.
        n: chosen n, or None.
        cost_dense_passes: cost of the choice.
        validation_ri: RI on validation, where the choice was made.
        ri: RI on test, with its interval over seeds and images.
        ri_low: lower end of its interval.
        ri_high: upper end.
        n_accuracy: n-accuracy on test.
        n_accuracy_low: lower end of its interval.
        n_accuracy_high: upper end.
        dense_ri: RI on test of the dense network at the same n.
        dense_n_accuracy: its n-accuracy.
        interior: strictly inside the grid of ratios.
        interior_share: share of replicates (seeds and images) in which the choice is interior.
        modal_share: share of replicates that choose this very ratio and n; or nothing, where nothing qualifies.
        replicates: how many replicates.
        guessing: the interval of RI at the choice holds 0, on validation or on test: no better than guessing, and not
            to be recommended.
        reason: why nothing qualifies, or a remark; empty otherwise.
    """

    pruner: str
    aggregator: str
    rule: Literal["retain", "budget", "target", "knee", "marginal"]
    value: float | None
    rule_n: int | None
    ratio: float | None
    n: int | None
    cost_dense_passes: float | None
    validation_ri: float | None
    ri: float | None
    ri_low: float | None
    ri_high: float | None
    n_accuracy: float | None
    n_accuracy_low: float | None
    n_accuracy_high: float | None
    dense_ri: float | None
    dense_n_accuracy: float | None
    interior: bool
    interior_share: float
    modal_share: float
    replicates: int
    guessing: bool
    reason: str

    @property
    def asked(self) -> str:
        """What the rule asks for, in words, such as `0.5 dense passes`."""
        value = 0.0 if self.value is None else self.value
        text = {
            "budget": f"{value:g} dense pass{'' if value == 1 else 'es'}",
            "retain": f"{100 * value:g}% of dense RI",
            "target": f"{100 * value:g}% right",
            "knee": "knee",
            "marginal": f"{value:g} RI per doubling",
        }[self.rule]
        return text if self.rule_n is None else f"{text}, n = {self.rule_n}"
