"""Seeds, comparisons and sweet spots, from methods made by hand."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from typing import Any

import pytest
import torch

from sharedlabel import rng
from sharedlabel.config.names import EXACT
from sharedlabel.config.sections import EvaluationConfig, SweetSpotConfig
from sharedlabel.data import tuples
from sharedlabel.records import Row
from sharedlabel.scoring.data import Data
from sharedlabel.summary import sweetspot
from sharedlabel.summary.seeds import ScoredCell
from sharedlabel.summary.tables import summarize
from sharedlabel.types import Dataset, Tuples

CLASSES, N = 4, (1, 2)
BITS = 2.0  # H(Y)
EVALUATION = EvaluationConfig(n=N, partitions=3)
RULES = SweetSpotConfig(budgets=(1.0,), target=0.9, replicates=50)
TYPES = {"int": 1, "float": 1.0, "str": "", "bool": False} | dict.fromkeys(
    ["int | None", "float | None", "str | None", "bool | None"]
)


@pytest.fixture(scope="module")
def data() -> Data:
    """Two hundred instances of four classes, half validation, half test."""
    labels = torch.arange(200) % CLASSES
    dataset = Dataset(
        name="made",
        images=torch.zeros(200, 1, 1, 1, dtype=torch.uint8),
        labels=labels,
        class_names=tuple("abcd"),
        groups=torch.arange(200) // 20,
        holdout=None,
        fingerprint="",
    )
    none = torch.arange(0)
    splits = {"backbone": none, "aggregator": none, "validation": torch.arange(100), "test": torch.arange(100, 200)}
    return Data(dataset, splits, torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64), "key")


def drawn_of(data: Data, role: Any, protocol: str) -> Tuples:
    cut = tuples.asked(EVALUATION, protocol)
    return data.tuples(role, protocol, max(N), EVALUATION.partitions, EVALUATION.seed, cut)


def rows(aggregator: str, ratio: float, seed: int, protocol: str, cost: float) -> tuple[Row, ...]:
    blank = {item.name: TYPES.get(item.type, "") for item in dataclasses.fields(Row)}
    identity = {
        "data": "made",
        "backbone": "mlp",
        "pruner": "none" if ratio == 1 else "magnitude",
        "ratio": ratio,
        "aggregator": aggregator,
        "training": "frozen",
        "seed": seed,
        "protocol": protocol,
    }
    return tuple(
        Row(
            **{
                **blank,
                **identity,
                "split": split,
                "n": n,
                "cost_dense_passes": n * cost,
                "efficiency": 3.0 + seed,
                "measured_latency_ms": 10.0 + seed**2,
            }
        )
        for split in ("validation", "test")
        for n in N
    )


def method(
    data: Data,
    aggregator: str = "a",
    *,
    ratio: float = 1.0,
    seed: int = 0,
    protocol: str = "iid",
    cost: float = 1.0,
    right: tuple[float, float] = (0.7, 0.7),
    missing: tuple[float, float] = (0.5, 0.5),
) -> ScoredCell:
    """A cell that is right this often, and lacks this many bits on average, on validation and on test."""
    scores = {}
    for role, share, bits in zip(("validation", "test"), right, missing, strict=True):
        shape = (*drawn_of(data, role, protocol).labels.shape, len(N))
        generator = rng.generator(seed, "scores", role)  # methods of a seed are right on the same tuples
        uniform = torch.rand(shape, generator=generator)
        scores[f"{role}.correct"] = (uniform < share).to(torch.uint8)
        scores[f"{role}.information"] = -(2 * bits * uniform).float()
    return ScoredCell(rows(aggregator, ratio, seed, protocol, cost), scores)


def weighted(data: Data, scores: torch.Tensor, role: Any, protocol: str = "iid") -> list[float]:
    means = []
    for column, size in enumerate(N):
        drawn, mean = drawn_of(data, role, protocol).reaching(size), 0.0
        for p, t in itertools.product(*map(range, drawn.labels.shape)):
            mean += float(drawn.weights[p, t] / len(drawn.weights) * scores[p, t, column])
        means.append(mean)
    return means


def summarized(data: Data, methods: list[ScoredCell], **changes: Any):
    summary = summarize(methods, data, dataclasses.replace(EVALUATION, **changes), RULES)
    between = [c for c in summary.comparisons if c.axis == "aggregator"]
    return summary.summaries, between, summary.sweet_spots


def seeded(methods: list[ScoredCell], seeds: int = 5) -> list[ScoredCell]:
    """The same scores under several seeds, which differ by nothing."""
    return [
        ScoredCell(tuple(dataclasses.replace(row, seed=seed) for row in one.rows), one.scores)
        for seed in range(seeds)
        for one in methods
    ]


def test_summaries_average_over_seeds(data):
    seeds = [method(data, seed=seed, right=(0.6, 0.8)) for seed in range(3)]
    summaries, comparisons, _ = summarized(data, seeds)
    assert comparisons == []
    assert [(s.split, s.n, s.seeds) for s in summaries] == [
        (split, n, 3) for split in ("validation", "test") for n in N
    ]
    for summary in summaries:
        column = N.index(summary.n)
        accuracy = [weighted(data, m.scores[f"{summary.split}.correct"], summary.split)[column] for m in seeds]
        bits = [weighted(data, m.scores[f"{summary.split}.information"], summary.split)[column] for m in seeds]
        assert summary.n_accuracy == pytest.approx(statistics.fmean(accuracy))
        assert summary.ri == pytest.approx(1 + statistics.fmean(bits) / BITS)
        assert summary.n_accuracy_low < summary.n_accuracy < summary.n_accuracy_high
        assert summary.ri_low < summary.ri < summary.ri_high
        assert summary.efficiency == pytest.approx(4.0)
        assert summary.cost_dense_passes == summary.n
        assert summary.measured_latency_ms == 11.0  # the median of 10, 11, 14


def test_seeds_that_disagree_widen_the_interval(data):
    alike = [method(data, seed=0), dataclasses.replace(method(data, seed=0), rows=rows("a", 1.0, 1, "iid", 1.0))]
    apart = [alike[0], ScoredCell(alike[1].rows, method(data, right=(0.3, 0.3), missing=(0.9, 0.9)).scores)]
    narrow, wide = (summarized(data, seeds)[0][-1] for seeds in (alike, apart))
    assert wide.n_accuracy_high - wide.n_accuracy_low > 2 * (narrow.n_accuracy_high - narrow.n_accuracy_low)
    assert wide.ri_high - wide.ri_low > 2 * (narrow.ri_high - narrow.ri_low)


@pytest.fixture(scope="module")
def three(data) -> list[ScoredCell]:
    """Two alike and one clearly worse on test, with validation the other way round."""
    return [
        method(data, "poor", right=(0.95, 0.4), missing=(0.1, 0.9)),
        method(data, "good", right=(0.5, 0.95), missing=(0.9, 0.1)),
        method(data, "same", right=(0.5, 0.95), missing=(0.9, 0.1)),
    ]


def test_comparisons_are_paired_differences_on_test(data, three):
    _, comparisons, _ = summarized(data, three)
    assert [(c.method, c.reference) for c in comparisons[:: 2 * len(N)]] == [
        ("good", "poor"),
        ("same", "poor"),
        ("same", "good"),
    ]
    scores = {m.rows[0].aggregator: m.scores for m in three}
    for comparison in comparisons:
        name, scale = ("correct", 1.0) if comparison.metric == "n_accuracy" else ("information", BITS)
        difference = (
            scores[comparison.method][f"test.{name}"].double() - scores[comparison.reference][f"test.{name}"].double()
        )
        expected = weighted(data, difference, "test")[N.index(comparison.n)] / scale
        assert comparison.difference == pytest.approx(expected)
        assert comparison.low <= comparison.difference <= comparison.high


def test_verdicts_follow_the_sign_and_equals_are_undecided(data, three):
    forward = {(c.method, c.reference): c.verdict for c in summarized(data, seeded(three))[1]}
    assert forward == {("good", "poor"): "better", ("same", "poor"): "better", ("same", "good"): "undecided"}
    backward = {(c.method, c.reference): c.verdict for c in summarized(data, seeded(three[::-1]))[1]}
    assert backward == {("poor", "good"): "worse", ("poor", "same"): "worse", ("good", "same"): "undecided"}


def test_swapping_method_and_reference_mirrors_the_comparison(data, three):
    forward = {(c.method, c.reference, c.metric, c.n): c for c in summarized(data, three)[1]}
    backward = {(c.reference, c.method, c.metric, c.n): c for c in summarized(data, three[::-1])[1]}
    assert forward.keys() == backward.keys()
    for key, one in forward.items():
        other = backward[key]
        assert (one.difference, one.low, one.high) == pytest.approx((-other.difference, -other.high, -other.low))
        assert (one.p_value, one.p_adjusted) == pytest.approx((other.p_value, other.p_adjusted))


def test_families_are_of_one_protocol(data):
    methods = [
        method(data, name, protocol=protocol, right=(0.5, share), missing=(0.5, 1 - share))
        for protocol in ("iid", "grouped")
        for name, share in (("log_pool", 0.70), ("b", 0.72), ("c", 0.78))
    ]
    pooled = summarize(
        seeded(methods), data, dataclasses.replace(EVALUATION, protocols=("iid", "grouped")), RULES
    ).pooled
    endpoints = [p for p in pooled if p.endpoint]
    assert len(endpoints) == 3 * 2
    for p in endpoints:
        tests = 2 if "log_pool" in (p.method, p.reference) else 1
        assert p.p_adjusted == pytest.approx(min(1.0, tests * p.p_value))


def test_networks_are_not_compared_with_each_other(data):
    methods = [method(data, name, ratio=ratio) for ratio in (1.0, 2.0) for name in ("a", "b")]
    assert {(c.ratio, c.method, c.reference) for c in summarized(data, methods)[1]} == {
        (1.0, "b", "a"),
        (2.0, "b", "a"),
    }


def test_the_exact_posterior_is_summarised_but_neither_compared_nor_chosen(data):
    summaries, comparisons, spots = summarized(data, [method(data), method(data, EXACT)])
    assert {s.aggregator for s in summaries} == {"a", "exact"}
    assert comparisons == []
    assert {s.aggregator for s in spots} == {"a"}


@pytest.fixture(scope="module")
def split_minds(data) -> list[ScoredCell]:
    """Ratio 4 is best on validation, ratio 2 on test; ratio 8 is poor."""
    return [
        method(data, ratio=1.0, cost=1.0, right=(0.8, 0.8), missing=(0.4, 0.4)),
        method(data, ratio=2.0, cost=0.5, right=(0.6, 0.95), missing=(0.8, 0.1)),
        method(data, ratio=4.0, cost=0.25, right=(0.95, 0.6), missing=(0.1, 0.8)),
        method(data, ratio=8.0, cost=0.12, right=(0.5, 0.5), missing=(0.9, 0.9)),
    ]


def test_sweet_spots_are_chosen_on_validation_and_reported_on_test(data, split_minds):
    summaries, _, spots = summarized(data, split_minds)
    at = {(s.split, s.ratio, s.n): s for s in summaries}
    by_rule = {(s.rule, s.rule_n): s for s in spots}
    assert set(by_rule) == {(rule, None) for rule in ("budget", "target", "knee", "marginal")} | {
        ("retain", n) for n in N
    }
    for key in (("budget", None), ("target", None), ("retain", 1), ("retain", 2)):
        spot = by_rule[key]
        assert spot.ratio == 4.0
        assert spot.interior
        test, dense = at["test", 4.0, spot.n], at["test", 1.0, spot.n]
        assert spot.validation_ri == pytest.approx(at["validation", 4.0, spot.n].ri)
        for name in ("ri", "ri_low", "ri_high", "n_accuracy", "n_accuracy_low", "n_accuracy_high"):
            assert getattr(spot, name) == pytest.approx(getattr(test, name))
        assert (spot.dense_ri, spot.dense_n_accuracy) == pytest.approx((dense.ri, dense.n_accuracy))
        assert spot.cost_dense_passes == pytest.approx(0.25 * spot.n)
        assert spot.pruner == "magnitude"
        assert spot.interior_share == 1.0
        assert spot.modal_share > 0.5


def test_a_choice_whose_interval_holds_zero_is_no_better_than_guessing(data):
    """Bits are missing as from a prior: RI is about 0 on test, whatever validation says."""
    for missing, guessing in (((0.2, 2.0), True), ((2.0, 0.2), True), ((0.6, 0.6), False)):
        _, _, spots = summarized(data, [method(data, missing=missing)])
        chosen = [s for s in spots if s.rule == "budget"]
        assert [s.guessing for s in chosen] == [guessing]
        assert (min(s.ri_low for s in chosen) <= 0) == (missing[1] == 2.0)


def test_nothing_that_qualifies_is_said(data, split_minds):
    spots = summarize(split_minds, data, EVALUATION, dataclasses.replace(RULES, target=1.0)).sweet_spots
    (target,) = (s for s in spots if s.rule == "target")
    assert (target.ratio, target.n, target.ri, target.dense_ri, target.interior) == (None, None, None, None, False)
    assert target.reason.startswith("the highest n-accuracy is 0.9")


def test_a_choice_whose_relative_information_may_be_zero_is_called_guessing(data):
    bits = 2.0  # of four classes: nothing is known of the label
    for validation, test in ((bits, bits), (bits, 0.5), (0.5, bits)):
        some = [
            method(data, ratio=ratio, cost=1 / ratio, right=(0.7, 0.7), missing=(validation, test))
            for ratio in (1.0, 4.0)
        ]
        spots = summarize(some, data, EVALUATION, RULES).sweet_spots
        assert {spot.guessing for spot in spots if spot.ratio is not None} == {True}
    clear = [method(data, ratio=ratio, cost=1 / ratio, right=(0.7, 0.7), missing=(0.5, 0.5)) for ratio in (1.0, 4.0)]
    assert not any(spot.guessing for spot in summarize(clear, data, EVALUATION, RULES).sweet_spots)


def test_agreement_is_about_the_very_choice_not_about_the_most_frequent_one(data, split_minds, monkeypatch):
    def elsewhere(points, rule, ri, accuracy):
        return sweetspot.Stability(10, 0.5, 0.2, {(1.0, 1): 0.7, (4.0, 1): 0.06, (4.0, 2): 0.04})

    monkeypatch.setattr(sweetspot, "interior_share", elsewhere)
    for spot in summarize(split_minds, data, EVALUATION, dataclasses.replace(RULES, target=1.0)).sweet_spots:
        shares = {(1.0, 1): 0.7, (4.0, 1): 0.06, (4.0, 2): 0.04, (None, None): 0.2}
        assert spot.modal_share == shares.get((spot.ratio, spot.n), 0.0)


def test_replicates_are_reproducible_and_follow_the_seed(data):
    close = [
        method(data, ratio=ratio, cost=1 / ratio, seed=seed, right=(0.7, 0.7), missing=(bits, bits))
        for seed in (0, 1)
        for ratio, bits in ((1.0, 0.5), (2.0, 0.503), (4.0, 0.506))
    ]
    rules = dataclasses.replace(RULES, replicates=400, retain=0.995)

    def shares(methods: list[ScoredCell]) -> list[tuple[float, float]]:
        return [(s.interior_share, s.modal_share) for s in summarize(methods, data, EVALUATION, rules).sweet_spots]

    torch.manual_seed(1)
    first = shares(close)
    torch.manual_seed(2)
    assert shares(close) == first
    assert any(0 < interior < 1 for interior, _ in first)
    assert all(0 <= share <= 1 for shares_of_rule in first for share in shares_of_rule)


def test_a_grid_of_the_dense_network_alone_still_has_its_points(data):
    _, _, spots = summarized(data, [method(data)])
    assert {s.pruner for s in spots} == {"none"}
    assert {s.ratio for s in spots} <= {1.0, None}
