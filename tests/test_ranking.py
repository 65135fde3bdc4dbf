"""Comparisons along axes, pooled differences, rank intervals and wins, by brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharedlabel.config.names import Protocol
from sharedlabel.config.sections import ComparisonConfig
from sharedlabel.data.tuples import partition
from sharedlabel.metrics.uncertainty import independent, seed_average
from sharedlabel.records import Identity, Rank, Row
from sharedlabel.rng import generator
from sharedlabel.scoring.scores import accuracy_and_ri
from sharedlabel.summary.comparisons import compare
from sharedlabel.summary.ranks import count_wins, rank, rank_intervals
from sharedlabel.summary.seeds import SeedScores, Split

N = (1, 2)
IMAGES, CLASSES, ENTROPY = 160, 4, 2.0
NETWORKS = (("none", 1.0), ("magnitude", 4.0), ("random", 4.0))
SEEDS = (0, 1, 2, 3, 4)
ASKED = ComparisonConfig(reference="a")
TYPES = {"int": 1, "float": 1.0, "bool": False} | dict.fromkeys(
    ["int | None", "float | None", "str | None", "bool | None"]
)


def row(identity: Identity, seed: int, n: int) -> Row:
    blank = {item.name: TYPES.get(str(item.type), "") for item in dataclasses.fields(Row)}
    return Row(**{**blank, **identity._asdict(), "data": "made", "seed": seed, "split": "test", "n": n})


@pytest.fixture(scope="module")
def split() -> Split:
    labels = torch.arange(IMAGES) % CLASSES
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    return Split(partition(labels, 2, 3, prior, generator(0, "tuples")), IMAGES, None, ENTROPY)


def scored(split: Split, identity: Identity, skill: float, seeds: tuple[int, ...] = SEEDS) -> SeedScores:
    """A method that misses so many bits; networks and methods share the images' difficulty."""
    difficulty = torch.rand(IMAGES, generator=generator(0, "difficulty"))
    hard = difficulty[split.drawn.indices].cumsum(2) / torch.tensor([1.0, 3.0])
    stored = []
    for seed in seeds:
        own = 0.05 * torch.rand(hard.shape, generator=generator(seed, *map(str, identity)))
        missing = hard + own + skill + 0.02 * seed
        stored.append({"test.correct": (missing < 0.7).to(torch.uint8), "test.information": -missing})
    rows = tuple(tuple(row(identity, seed, n) for n in N) for seed in seeds)
    return SeedScores("test", rows, tuple(stored))


SKILLS = {"a": 0.0, "b": 0.001, "c": 0.1, "exact": 0.0}


def grid(split: Split) -> Iterator[tuple[Identity, SeedScores]]:
    for (pruner, ratio), (name, skill), training in itertools.product(NETWORKS, SKILLS.items(), ("frozen", "joint")):
        identity = Identity("mlp", pruner, ratio, name, training, "iid")
        worse = 0.05 * (ratio > 1) + 0.03 * (pruner == "random") - 0.02 * (training == "joint")
        yield identity, scored(split, identity, skill + worse)


@pytest.fixture(scope="module")
def methods(split: Split) -> dict[Identity, SeedScores]:
    return dict(grid(split))


@pytest.fixture(scope="module")
def splits(split: Split) -> dict[Protocol, Split]:
    return {"iid": split}


def test_axes_compare_what_differs_in_them_alone(methods, splits) -> None:
    comparisons = compare(methods, splits).comparisons
    pairs = {axis: set() for axis in ("aggregator", "training", "pruner", "compression")}
    for c in comparisons:
        place = (c.pruner, c.ratio, c.aggregator, c.training)
        pairs[c.axis].add((place, c.method, c.reference))
        assert "exact" not in (c.aggregator, c.reference)
        assert c.seeds == len(SEEDS)
    assert {(method, reference) for _, method, reference in pairs["aggregator"]} == {("b", "a"), ("c", "a"), ("c", "b")}
    assert all(place[2] == method for place, method, _ in pairs["aggregator"])
    assert len(pairs["aggregator"]) == 3 * len(NETWORKS) * 2
    assert {(p[3], m, r) for p, m, r in pairs["training"]} == {("joint", "joint", "frozen")}
    assert len(pairs["training"]) == 3 * len(NETWORKS)
    assert {(p[0], p[1], m, r) for p, m, r in pairs["pruner"]} == {("random", 4.0, "random", "magnitude")}
    assert {(p[0], m, r) for p, m, r in pairs["compression"]} == {
        ("magnitude", "magnitude 4x", "dense"),
        ("random", "random 4x", "dense"),
    }


def test_comparisons_of_every_axis_are_paired_differences(methods, splits, split) -> None:
    for c in compare(methods, splits).comparisons:
        own, other = c.pair
        alone = seed_average(methods[own].scores() - methods[other].scores(), split.drawn, [*N, *N], IMAGES)
        column = (0 if c.metric == "n_accuracy" else len(N)) + N.index(c.n)
        scale = 1.0 if c.metric == "n_accuracy" else ENTROPY
        assert c.difference == pytest.approx(float(alone.mean[column]) / scale)
        assert c.low <= c.difference <= c.high
        images = alone.spread[column]  # the variance over seeds is moderated, that over images is not
        assert c.high - c.low >= 2 * 1.9 * float(images.of_images.sqrt()) / scale
        assert c.low_adjusted <= c.low <= c.high <= c.high_adjusted


def by_pair(records):
    """Records by axis, place in the table, and pair."""
    groups = {}
    for r in records:
        groups.setdefault((r.axis, r.backbone, r.training, r.protocol, r.method, r.reference), []).append(r)
    return groups


def test_every_pair_has_one_primary_question_that_opens_the_others(methods, splits) -> None:
    comparisons, pooled = compare(methods, splits, ASKED)
    single, gates = by_pair(comparisons), {}
    for pair, records in by_pair(pooled).items():
        (gates[pair],) = (r for r in records if r.endpoint)
        assert (gates[pair].metric, gates[pair].n) == ("ri", None)
        assert {(r.metric, r.n) for r in records if not r.endpoint} == set(itertools.product(("n_accuracy", "ri"), N))
    assert set(single) == set(gates)
    families = {}
    for pair, gate in gates.items():
        primary = pair[0] != "aggregator" or pair[5] == "a"
        assert ("primary" if primary else "secondary") in gate.correction
        families.setdefault((pair[0], primary), []).append(gate)
    assert {axis: len(own) for axis, own in families.items()} == {
        ("aggregator", True): 4, ("aggregator", False): 2, ("training", True): 1, ("pruner", True): 2,
        ("compression", True): 4,
    }  # fmt: skip
    for own in families.values():
        for gate in own:
            assert gate.p_adjusted == pytest.approx(min(1.0, len(own) * gate.p_value))
    for pair, gate in gates.items():
        count = len(families[pair[0], pair[0] != "aggregator" or pair[5] == "a"])
        for r in (*single[pair], *(r for r in by_pair(pooled)[pair] if not r.endpoint)):
            tests = count * (len(single[pair]) if hasattr(r, "pruner") else 2 * len(N))
            assert r.p_adjusted == pytest.approx(max(gate.p_adjusted, min(1.0, tests * r.p_value)))
            if gate.p_adjusted >= 0.05:
                assert r.verdict == "undecided"
                assert r.low_adjusted <= 0 <= r.high_adjusted


def test_verdicts_are_read_off_the_adjusted_interval(methods, splits) -> None:
    comparisons, pooled = compare(methods, splits, dataclasses.replace(ASKED, margin=0.03))
    seen = set()
    for r in (*comparisons, *pooled):
        inside = r.low_adjusted > -0.03 and r.high_adjusted < 0.03
        if r.verdict == "equivalent":
            assert inside
        elif r.verdict in {"better", "worse"}:
            assert not inside
            assert r.low_adjusted > 0 if r.verdict == "better" else r.high_adjusted < 0
            assert r.p_adjusted < 0.05
        else:
            assert r.verdict == "undecided"
            assert r.low_adjusted <= 0 <= r.high_adjusted
        seen.add(r.verdict)
    assert seen == {"better", "worse", "equivalent", "undecided"}
    alike = [p for p in pooled if (p.axis, p.method, p.endpoint) == ("aggregator", "b", True)]
    assert {p.verdict for p in alike} == {"equivalent"}


@pytest.mark.parametrize("seeds", [1, 2, 4])
def test_there_is_no_verdict_with_fewer_than_five_seeds(split, splits, seeds: int) -> None:
    few = {i: dataclasses.replace(s, rows=s.rows[:seeds], stored=s.stored[:seeds]) for i, s in grid(split)}
    comparisons, pooled = compare(few, splits, ASKED)
    assert {r.verdict for r in (*comparisons, *pooled)} == {"no verdict"}
    assert {(r.rank_best, r.rank_worst) for r in rank(few, splits, pooled, ASKED)} == {(1, 3)}
    assert all(w.wins == w.losses == w.equivalent == 0 < w.undecided for w in count_wins(comparisons))


def test_the_primary_endpoint_may_be_one_n(methods, splits) -> None:
    asked = dataclasses.replace(ASKED, n=2)
    pooled = compare(methods, splits, asked).pooled
    for records in by_pair(pooled).values():
        (gate,) = (r for r in records if r.endpoint)
        (same,) = (r for r in records if not r.endpoint and (r.metric, r.n) == ("ri", 2))
        assert gate.n == 2
        assert (gate.difference, gate.p_value) == pytest.approx((same.difference, same.p_value))
    assert {r.n for r in rank(methods, splits, pooled, asked) if r.endpoint} == {2}


def test_without_the_reference_every_pair_is_primary(methods, splits) -> None:
    pooled = compare(methods, splits, ComparisonConfig(reference="absent")).pooled
    own = [p for p in pooled if p.axis == "aggregator" and p.endpoint]
    assert len(own) == 3 * 2
    assert {p.correction for p in own} == {"Bonferroni over 6 primary pairs"}


def test_what_was_not_seen_is_not_excluded(split, splits) -> None:
    """Two methods that agree on every tuple: the rule of three bounds what fresh images may show."""
    first, second = (Identity("mlp", "none", 1.0, name, "frozen", "iid") for name in "ab")
    one = scored(split, first, 0.0)
    twin = {
        first: one,
        second: dataclasses.replace(one, rows=tuple(tuple(row(second, s, n) for n in N) for s in SEEDS)),
    }
    for r in (r for records in compare(twin, splits, ASKED) for r in records):
        n = r.n or statistics.fmean(N)
        assert r.p_value == 1
        assert (r.low, r.high) == pytest.approx((math.log(0.05) * n / IMAGES, -math.log(0.05) * n / IMAGES))
        assert r.verdict == "undecided"


def pooled_scores(methods: dict[Identity, SeedScores], name: str) -> Tensor:
    networks = [one.scores() for who, one in methods.items() if (who.aggregator, who.training) == (name, "frozen")]
    return torch.stack(networks).mean(dim=0)


def test_pooling_averages_each_tuple_over_networks_before_the_variance(methods, splits, split) -> None:
    pooled = compare(methods, splits, ASKED).pooled
    frozen = [p for p in pooled if (p.axis, p.training) == ("aggregator", "frozen")]
    assert len(frozen) == 3 * (2 * len(N) + 1)
    for p in frozen:
        apart = pooled_scores(methods, p.method) - pooled_scores(methods, p.reference)
        alone = seed_average(apart, split.drawn, [*N, *N], IMAGES)
        bits = alone.mean[len(N) :]
        assert (p.cells, p.seeds) == (len(NETWORKS), len(SEEDS))
        if p.endpoint:
            assert p.difference == pytest.approx(float(bits.mean()) / ENTROPY)
        else:
            column = (0 if p.metric == "n_accuracy" else len(N)) + N.index(p.n)
            scale = 1.0 if p.metric == "n_accuracy" else ENTROPY
            assert p.difference == pytest.approx(float(alone.mean[column]) / scale)
    for r in (r for r in rank(methods, splits, pooled, ASKED) if r.training == "frozen" and r.metric == "ri"):
        own = seed_average(pooled_scores(methods, r.aggregator), split.drawn, [*N, *N], IMAGES).mean[len(N) :]
        assert r.mean == pytest.approx(1 + float(own.mean() if r.endpoint else own[N.index(r.n)]) / ENTROPY)
        assert r.low < r.mean < r.high


def test_ranks_are_intervals_and_name_those_that_share_them(methods, splits) -> None:
    pooled = compare(methods, splits, ASKED).pooled
    ranks = {
        (r.aggregator, r.n): r
        for r in rank(methods, splits, pooled, ASKED)
        if (r.metric, r.training) == ("ri", "frozen")
    }
    for n in (*N, None):
        assert (ranks["c", n].rank_best, ranks["c", n].rank_worst, ranks["c", n].alike) == (3, 3, "[]")
        for name, other in (("a", "b"), ("b", "a")):
            assert (ranks[name, n].rank_best, ranks[name, n].rank_worst, ranks[name, n].alike) == (1, 2, f'["{other}"]')


def test_pooling_leaves_out_networks_and_seeds_that_not_all_have(methods, splits, split) -> None:
    partial = dict(methods)
    del partial["mlp", "random", 4.0, "c", "frozen", "iid"]
    late = Identity("mlp", "magnitude", 4.0, "b", "frozen", "iid")
    partial[late] = scored(split, late, 0.05, seeds=(2, 1))

    def frozen(records):
        return [r for r in records if (r.axis, r.training) == ("aggregator", "frozen")]

    comparisons, pooled = compare(partial, splits, ASKED)
    assert {(p.cells, p.seeds) for p in frozen(pooled)} == {(2, 2)}
    assert {c.seeds for c in frozen(comparisons) if c.pruner == "magnitude"} == {2}
    assert {(c.method, c.reference) for c in frozen(comparisons) if c.pruner == "random"} == {("b", "a")}
    partial[late] = scored(split, late, 0.05, seeds=(7,))
    comparisons, pooled = compare(partial, splits, ASKED)
    assert not frozen(pooled)
    assert not [c for c in frozen(comparisons) if c.pruner == "magnitude"]
    left = [c for c in frozen(comparisons) if c.pruner == "random"]
    assert left
    assert {c.verdict for c in left} == {"undecided"}  # nothing pooled opens them


def test_wins_count_verdicts_both_ways(methods, splits) -> None:
    comparisons = compare(methods, splits, ASKED).comparisons
    wins = {(w.training, w.n, w.method, w.reference, w.metric): w for w in count_wins(comparisons)}
    assert len(wins) == 2 * len(N) * 6 * 2
    for (training, n, method, reference, metric), w in wins.items():
        same = [
            c.verdict if c.method == method else {"better": "worse", "worse": "better"}.get(c.verdict, c.verdict)
            for c in comparisons
            if (c.axis, c.training, c.n, c.metric) == ("aggregator", training, n, metric)
            and {c.method, c.reference} == {method, reference}
        ]
        counts = tuple(map(same.count, ("better", "equivalent", "undecided", "worse")))
        assert (w.wins, w.equivalent, w.undecided, w.losses) == counts
        mirror = wins[training, n, reference, method, metric]
        assert counts == (mirror.losses, mirror.equivalent, mirror.undecided, mirror.wins)
    assert any(w.wins for w in wins.values())


@given(st.integers(2, 5).flatmap(lambda m: st.tuples(st.just(m), st.lists(
    st.sampled_from(["better", "worse", "undecided", "equivalent"]),
    min_size=m * (m - 1) // 2, max_size=m * (m - 1) // 2))))  # fmt: skip
def test_rank_intervals_hold_every_order_that_the_verdicts_allow(case) -> None:
    """By enumeration: no order in which every verdict holds puts a method outside its interval."""
    count, verdicts = case
    names = "abcde"[:count]
    judged = dict(zip(itertools.combinations(names, 2), verdicts, strict=True))
    intervals = rank_intervals(names, judged)
    for order in itertools.permutations(names):
        place = {name: position for position, name in enumerate(order, start=1)}
        if all(
            verdict in {"undecided", "equivalent"} or (place[a] < place[b]) == (verdict == "better")
            for (a, b), verdict in judged.items()
        ):
            assert all(best <= place[name] <= worst for name, (best, worst, _) in intervals.items())
    for name, (best, worst, alike) in intervals.items():
        assert worst - best == len(alike)
        assert name not in alike


def test_ranks_say_whose_they_are_from_best_to_worst(methods, splits, split) -> None:
    pooled = compare(methods, splits, ASKED).pooled
    ranks = rank(methods, splits, pooled, ASKED)
    assert {(r.data, r.backbone, r.protocol, r.networks, r.seeds) for r in ranks} == {("made", "mlp", "iid", 3, 5)}
    tables = [list(own) for _, own in itertools.groupby(ranks, lambda r: (r.training, r.metric, r.n, r.endpoint))]
    assert [(t[0].training, t[0].metric, t[0].n, t[0].endpoint) for t in tables] == [
        (training, *where)
        for training in ("frozen", "joint")
        for where in (*((metric, n, False) for metric in ("n_accuracy", "ri") for n in N), ("ri", None, True))
    ]
    for table in tables:
        assert {r.aggregator for r in table} == {"a", "b", "c"}
        assert [r.mean for r in table] == sorted((r.mean for r in table), reverse=True)
        if table[0].training == "frozen" and not table[0].endpoint:
            for r in table:
                assert (r.low, r.mean, r.high) == pytest.approx(ends(methods, split, r, None))


def ends(methods, split: Split, record: Rank, groups: Tensor | None) -> tuple[float, float, float]:
    """The interval of an aggregator's mean over networks, in another way: method by method."""
    scores = pooled_scores(methods, record.aggregator)
    estimate = seed_average(scores, split.drawn, [*N, *N], IMAGES, groups)
    accuracy, ri = accuracy_and_ri(estimate, independent(N, IMAGES, groups), ENTROPY)
    mean, low, high = (end[N.index(record.n)] for end in (accuracy if record.metric == "n_accuracy" else ri))
    return float(low), float(mean), float(high)


def test_ranks_of_grouped_tuples_are_over_groups() -> None:
    groups = torch.arange(IMAGES) // 16
    labels = torch.arange(IMAGES) % CLASSES
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    cut = Split(partition(labels, 2, 3, prior, generator(0, "tuples"), groups), IMAGES, groups, ENTROPY)
    methods = {who._replace(protocol="grouped"): scores for who, scores in grid(cut) if who.training == "frozen"}
    splits: dict[Protocol, Split] = {"grouped": cut}
    ranks = [r for r in rank(methods, splits, compare(methods, splits, ASKED).pooled, ASKED) if not r.endpoint]
    assert len(ranks) == 3 * 2 * len(N)
    for r in ranks:
        assert r.protocol == "grouped"
        assert (r.low, r.mean, r.high) == pytest.approx(ends(methods, cut, r, groups))
        assert (r.low, r.high) != pytest.approx(ends(methods, cut, r, None)[::2])


TESTS, COLUMNS = 6, 4  # pairs at the gate: three aggregators, two kinds of training; two n and two metrics behind it


@pytest.mark.parametrize(
    ("gate", "behind", "difference", "shown"),
    [
        (0.0499 / TESTS, 0.0499 / TESTS / COLUMNS, 0.5, True),
        (0.0499 / TESTS, 0.0499 / TESTS / COLUMNS, -0.5, True),
        (0.0499 / TESTS, 0.0501 / TESTS / COLUMNS, 0.5, False),
        (0.0501 / TESTS, 0.0, 0.5, False),
    ],
    ids=["better", "worse", "not shown at this n", "gate shut"],
)
def test_two_aggregators_are_ordered_where_the_gate_and_the_table_say_so(
    methods, splits, gate: float, behind: float, difference: float, shown: bool
) -> None:
    """Of b and a alone; every other pair has p = 1."""
    pooled = [
        dataclasses.replace(
            p,
            p_value=1.0
            if (p.method, p.reference, p.training) != ("b", "a", "frozen")
            else gate
            if p.endpoint
            else behind,
            difference=difference,
        )
        for p in compare(methods, splits, ASKED).pooled
    ]
    ranks = [r for r in rank(methods, splits, pooled, ASKED) if r.training == "frozen"]
    for (endpoint, _), own in itertools.groupby(ranks, lambda r: (r.endpoint, (r.metric, r.n))):
        places = {r.aggregator: (r.rank_best, r.rank_worst) for r in own}
        open_ = gate < 0.05 / TESTS if endpoint else shown
        first, second = ("b", "a") if difference > 0 else ("a", "b")
        assert places[first] == ((1, 2) if open_ else (1, 3))
        assert places[second] == ((2, 3) if open_ else (1, 3))
        assert places["c"] == (1, 3)


def test_behind_a_shut_gate_nothing_is_shown(split, splits) -> None:
    """One instance speaks for b, two against it, and over both there is no difference."""
    twins = {}
    for network, name in itertools.product(NETWORKS[:2], "ab"):
        identity = Identity("mlp", *network, name, "frozen", "iid")
        one = scored(split, identity, 0.0)
        apart = torch.tensor([0.2, -0.2]) * (name == "b")
        stored = tuple({**part, "test.information": part["test.information"] + apart} for part in one.stored)
        twins[identity] = dataclasses.replace(one, stored=stored)
    comparisons, pooled = compare(twins, splits, ASKED)
    own = [p for p in pooled if p.axis == "aggregator"]
    (gate,) = (p for p in own if p.endpoint)
    assert gate.p_value > 0.05
    assert gate.correction == "Bonferroni over 1 primary pair"
    behind = [p for p in own if not p.endpoint] + [c for c in comparisons if c.axis == "aggregator"]
    assert min(r.p_value for r in behind if r.metric == "ri") < 1e-6
    for r in behind:
        assert r.data == "made"
        assert r.verdict == "undecided"
        assert r.p_adjusted >= gate.p_adjusted
        assert r.low_adjusted <= 0 <= r.high_adjusted
        assert "behind the pooled test" in r.correction
