"""Comparisons along axes, pooled differences, rank intervals and wins, by brute force."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharedlabel.comparing import adjusted, compare
from sharedlabel.data.tuples import partition
from sharedlabel.metrics.intervals import holm
from sharedlabel.metrics.paired import all_pairs
from sharedlabel.metrics.uncertainty import paired_difference, seed_average
from sharedlabel.ranking import count_wins, rank, rank_intervals
from sharedlabel.results import AXES, Row
from sharedlabel.rng import generator
from sharedlabel.scored import Identity, Scored, Split
from sharedlabel.types import Protocol

N = (1, 2)
IMAGES, CLASSES, ENTROPY = 160, 4, 2.0
NETWORKS = (("none", 1.0), ("magnitude", 4.0), ("random", 4.0))
SEEDS = (0, 1, 2)
TYPES = {"int": 1, "float": 1.0, "bool": False}


def row(identity: Identity, seed: int, n: int) -> Row:
    blank = {item.name: TYPES.get(str(item.type), "") for item in dataclasses.fields(Row)}
    return Row(**{**blank, **identity._asdict(), "data": "made", "seed": seed, "split": "test", "n": n})


@pytest.fixture(scope="module")
def split() -> Split:
    labels = torch.arange(IMAGES) % CLASSES
    prior = torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64)
    return Split(partition(labels, 2, 3, prior, generator(0, "tuples")), IMAGES, None, ENTROPY)


def scored(split: Split, identity: Identity, skill: float, seeds: tuple[int, ...] = SEEDS) -> Scored:
    """A method that misses so many bits; networks and methods share the images' difficulty."""
    difficulty = torch.rand(IMAGES, generator=generator(0, "difficulty"))
    hard = difficulty[split.drawn.indices].cumsum(2) / torch.tensor([1.0, 3.0])
    stored = []
    for seed in seeds:
        own = 0.05 * torch.rand(hard.shape, generator=generator(seed, *map(str, identity)))
        missing = hard + own + skill + 0.02 * seed
        stored.append({"test.correct": (missing < 0.7).to(torch.uint8), "test.information": -missing})
    rows = tuple(tuple(row(identity, seed, n) for n in N) for seed in seeds)
    return Scored("test", rows, tuple(stored))


SKILLS = {"a": 0.0, "b": 0.001, "c": 0.1, "exact": 0.0}


def grid(split: Split) -> Iterator[tuple[Identity, Scored]]:
    for (pruner, ratio), (name, skill), training in itertools.product(NETWORKS, SKILLS.items(), ("frozen", "joint")):
        identity = Identity("mlp", pruner, ratio, name, training, "iid")
        worse = 0.05 * (ratio > 1) + 0.03 * (pruner == "random") - 0.02 * (training == "joint")
        yield identity, scored(split, identity, skill + worse)


@pytest.fixture(scope="module")
def found(split: Split) -> dict[Identity, Scored]:
    return dict(grid(split))


@pytest.fixture(scope="module")
def splits(split: Split) -> dict[Protocol, Split]:
    return {"iid": split}


def test_axes_compare_what_differs_in_them_alone(found, splits) -> None:
    comparisons = compare(found, splits)
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


def test_comparisons_of_every_axis_are_paired_differences(found, splits, split) -> None:
    for c in compare(found, splits):
        own = Identity(c.backbone, c.pruner, c.ratio, c.aggregator, c.training, c.protocol)
        if c.axis == "compression":
            other = own._replace(pruner="none", ratio=1.0)
        else:
            other = own._replace(**{c.axis: c.reference})
        alone = paired_difference(found[own].scores(), found[other].scores(), split.drawn, [*N, *N], IMAGES)
        column = (0 if c.metric == "n_accuracy" else len(N)) + N.index(c.n)
        scale = 1.0 if c.metric == "n_accuracy" else ENTROPY
        assert c.difference == pytest.approx(float(alone.estimate.mean[column]) / scale)
        assert c.low <= c.difference <= c.high
        if abs(c.difference) * scale > 1e-6:
            assert c.p_value == pytest.approx(float(alone.p_value[column]), rel=1e-4, abs=1e-12)


def test_families_are_per_axis_metric_and_protocol(found, splits) -> None:
    comparisons = compare(found, splits)
    for axis, metric in itertools.product(("aggregator", "training", "pruner", "compression"), ("n_accuracy", "ri")):
        family = [c for c in comparisons if (c.axis, c.metric) == (axis, metric)]
        expected = holm(torch.tensor([c.p_value for c in family], dtype=torch.float64)).tolist()
        assert [c.p_holm for c in family] == pytest.approx(expected)
        for c in family:
            assert c.verdict == ("tied" if c.p_holm >= 0.05 else "better" if c.difference > 0 else "worse")


def pooled_scores(found: dict[Identity, Scored], name: str) -> Tensor:
    networks = [found["mlp", pruner, ratio, name, "frozen", "iid"].scores() for pruner, ratio in NETWORKS]
    return torch.stack(networks).mean(dim=0)


def test_pooling_averages_each_tuple_over_networks_before_the_variance(found, splits, split) -> None:
    pooled, ranks = rank(found, splits)
    frozen = [p for p in pooled if p.training == "frozen"]
    assert len(frozen) == 3 * 2 * len(N)
    for p in frozen:
        alone = paired_difference(
            pooled_scores(found, p.method), pooled_scores(found, p.reference), split.drawn, [*N, *N], IMAGES
        )
        column = (0 if p.metric == "n_accuracy" else len(N)) + N.index(p.n)
        scale = 1.0 if p.metric == "n_accuracy" else ENTROPY
        assert p.difference == pytest.approx(float(alone.estimate.mean[column]) / scale)
        assert (p.networks, p.seeds) == (len(NETWORKS), len(SEEDS))
        assert p.p_value == pytest.approx(float(alone.p_value[column]), rel=1e-4, abs=1e-12)
    for r in (r for r in ranks if r.training == "frozen" and r.metric == "ri"):
        own = seed_average(pooled_scores(found, r.aggregator), split.drawn, [*N, *N], IMAGES)
        assert r.mean == pytest.approx(1 + float(own.mean[len(N) + N.index(r.n)]) / ENTROPY)
        assert r.low < r.mean < r.high


def test_ranks_are_intervals_and_show_ties(found, splits) -> None:
    ranks = {(r.aggregator, r.n): r for r in rank(found, splits)[1] if (r.metric, r.training) == ("ri", "frozen")}
    for n in N:
        assert (ranks["c", n].rank_best, ranks["c", n].rank_worst, ranks["c", n].tied) == (3, 3, "")
        for name, other in (("a", "b"), ("b", "a")):
            assert (ranks[name, n].rank_best, ranks[name, n].rank_worst, ranks[name, n].tied) == (1, 2, other)


def test_ranks_leave_out_networks_and_seeds_that_not_all_have(found, splits, split) -> None:
    partial = dict(found)
    del partial["mlp", "random", 4.0, "c", "frozen", "iid"]
    late = Identity("mlp", "magnitude", 4.0, "b", "frozen", "iid")
    partial[late] = scored(split, late, 0.05, seeds=(2, 1))
    pooled = [p for p in rank(partial, splits)[0] if p.training == "frozen"]
    assert {(p.networks, p.seeds) for p in pooled} == {(2, 2)}
    comparisons = [c for c in compare(partial, splits) if c.training == "frozen" and c.axis == "aggregator"]
    assert {c.seeds for c in comparisons if c.pruner == "magnitude"} == {2}
    partial[late] = scored(split, late, 0.05, seeds=(7,))
    assert not [c for c in compare(partial, splits) if c.pruner == "magnitude" and c.axis == "aggregator"
                and c.training == "frozen"]  # fmt: skip


def test_wins_count_verdicts_both_ways(found, splits) -> None:
    comparisons = compare(found, splits)
    wins = {(w.training, w.n, w.method, w.reference, w.metric): w for w in count_wins(comparisons)}
    assert len(wins) == 2 * len(N) * 6 * 2
    for (training, n, method, reference, metric), w in wins.items():
        same = [
            c.verdict if c.method == method else {"better": "worse", "worse": "better", "tied": "tied"}[c.verdict]
            for c in comparisons
            if (c.axis, c.training, c.n, c.metric) == ("aggregator", training, n, metric)
            and {c.method, c.reference} == {method, reference}
        ]
        assert (w.wins, w.ties, w.losses) == tuple(map(same.count, ("better", "tied", "worse")))
        mirror = wins[training, n, reference, method, metric]
        assert (w.wins, w.ties, w.losses) == (mirror.losses, mirror.ties, mirror.wins)


@given(st.integers(2, 5).flatmap(lambda m: st.tuples(st.just(m), st.lists(
    st.sampled_from(["better", "worse", "tied"]), min_size=m * (m - 1) // 2, max_size=m * (m - 1) // 2))))  # fmt: skip
def test_rank_intervals_hold_every_order_that_the_verdicts_allow(case) -> None:
    """By enumeration: no order in which every verdict holds puts a method outside its interval."""
    count, verdicts = case
    names = "abcde"[:count]
    judged = dict(zip(itertools.combinations(names, 2), verdicts, strict=True))
    found = rank_intervals(names, judged)
    for order in itertools.permutations(names):
        place = {name: position for position, name in enumerate(order, start=1)}
        if all(
            verdict == "tied" or (place[a] < place[b]) == (verdict == "better") for (a, b), verdict in judged.items()
        ):
            assert all(best <= place[name] <= worst for name, (best, worst, _) in found.items())
    for name, (best, worst, tied) in found.items():
        assert worst - best == len(tied)
        assert name not in tied


def test_rank_intervals_cover_the_true_ranks_at_once(split) -> None:
    """Fresh images and seeds, five methods with two equal ones: all intervals of a ranking hold in 95% of trials."""
    skills = torch.tensor([0.0, 0.05, 0.05, 0.1, 0.12], dtype=torch.float64)
    true = [(1, 1), (2, 3), (2, 3), (4, 4), (5, 5)]
    stream, trials, held = generator(0, "trials"), 100, 0
    for _ in range(trials):
        common = torch.randn(IMAGES, generator=stream)
        noise = 0.5 * torch.randn(5, IMAGES, generator=stream) + common
        trained = 0.02 * torch.randn(5, 3, 1, 1, 1, generator=stream)
        values = noise[:, split.drawn.indices].mean(3)[:, None, :, :, None] + trained - skills.view(5, 1, 1, 1, 1)
        pairs = list(itertools.combinations(range(5), 2))
        paired = all_pairs(values, split.drawn, (2,), IMAGES)
        p_holm = holm(torch.stack([paired.p_value()[pair][0] for pair in pairs])).tolist()
        verdicts = {
            (str(a), str(b)): "tied" if p >= 0.05 else "better" if paired.difference[a, b] > 0 else "worse"
            for (a, b), p in zip(pairs, p_holm, strict=True)
        }
        found = rank_intervals("01234", verdicts)
        # A tied method may take any of the ranks that it shares.
        held += all(found[str(i)][0] <= low and high <= found[str(i)][1] for i, (low, high) in enumerate(true))
    assert held / trials >= 0.9


def test_adjusting_keeps_the_order(found, splits) -> None:
    comparisons = compare(found, splits)
    again = adjusted(comparisons, lambda c: (c.axis, c.metric, c.protocol))
    assert again == comparisons
    assert set(AXES) > {"aggregator", "training", "pruner"}
