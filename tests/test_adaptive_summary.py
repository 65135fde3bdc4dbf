"""Adaptive n over seeds: points against loops over tuples, gains by hand, spreads by reweighing."""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import _adaptive_coverage
from sharedlabel import rng
from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.data import tuples
from sharedlabel.metrics.uncertainty import seed_average
from sharedlabel.records import Row
from sharedlabel.scoring.data import Data
from sharedlabel.summary import adaptive_n
from sharedlabel.summary.adaptive_n import Stopped, costs, gain, hull, ratio, summarize
from sharedlabel.types import Dataset, Tuples

CLASSES, N_MAX, BITS = 4, 3, 2.0
EVALUATION = EvaluationConfig(n=(1, N_MAX), partitions=3)
AIMS = (("error", 0.1), ("instances", 1.0), ("instances", 3.0))
TYPES = {"int": 1, "float": 1.0, "str": "", "bool": False} | dict.fromkeys(
    ["int | None", "float | None", "str | None", "bool | None"]
)


@pytest.fixture(scope="module")
def data() -> Data:
    labels = torch.arange(240) % CLASSES
    dataset = Dataset(
        name="made",
        images=torch.zeros(240, 1, 1, 1, dtype=torch.uint8),
        labels=labels,
        class_names=tuple("abcd"),
        groups=torch.arange(240) // 20,
        holdout=None,
        fingerprint="",
    )
    none = torch.arange(0)
    splits = {"backbone": none, "aggregator": none, "validation": torch.arange(100), "test": torch.arange(100, 240)}
    return Data(dataset, splits, torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64), "key")


def drawn_of(data: Data, protocol: str = "iid"):
    cut = tuples.asked(EVALUATION, protocol)
    return data.tuples("test", protocol, N_MAX, EVALUATION.partitions, EVALUATION.seed, cut)


def cell(data: Data, seed: int = 0, *, protocol: str = "iid", aims: Any = AIMS, level: float = 0.6) -> Stopped:
    """A cell whose scores and stops are drawn at random; the last threshold is never reached."""
    stream, shape = rng.generator(seed, "made"), drawn_of(data, protocol).labels.shape
    instances = torch.randint(1, N_MAX + 1, (*shape, len(aims)), generator=stream)
    reached = (instances < N_MAX) | (torch.rand(instances.shape, generator=stream) < 0.5)
    for at, aim in enumerate(aims):
        if aim == ("instances", 1.0):
            instances[..., at], reached[..., at] = 1, True
        if aim == ("instances", 3.0):
            instances[..., at], reached[..., at] = N_MAX, False
    blank = {item.name: TYPES.get(item.type, "") for item in dataclasses.fields(Row)}
    named = {"data": "made", "backbone": "mlp", "pruner": "magnitude", "ratio": 2.0, "aggregator": "a"}
    named |= {
        "training": "frozen",
        "split": "test",
        "protocol": protocol,
        "seed": seed,
        "macs_effective": 50.0,
        "macs_dense": 100,
    }
    thresholds = [
        {"rule": "threshold", "aim": aim, "value": value, "threshold": 0.5 + 0.1 * seed, "error": 0.05,
         "instances": 1.5 + seed, "truncated": 0.1} for aim, value in aims
    ]  # fmt: skip
    return Stopped(
        Row(**{**blank, **named}),
        {
            "correct": (torch.rand(*shape, N_MAX, generator=stream) < level).to(torch.uint8),
            "information": -torch.rand(*shape, N_MAX, generator=stream),
            "instances": instances.to(torch.int16),
            "reached": reached,
        },
        {
            "thresholds": thresholds,
            "validation": {"n_accuracy": [0.5, 0.7, 0.8], "information": [-1.0, -0.5, -0.2]},
            "macs": [0, 10, 20],
            "anytime_macs": [0, 20, 40],
        },
    )


def loops(data: Data, one: Stopped, at: int, protocol: str = "iid") -> dict[str, float]:
    """Every share and mean, one tuple after the other."""
    drawn, sums = drawn_of(data, protocol), dict.fromkeys(("right", "bits", "used", "reached", "wrong", "cost"), 0.0)
    for p, t in itertools.product(*map(range, drawn.labels.shape)):
        weight = float(drawn.weights[p, t]) / len(drawn.weights)
        used, reached = int(one.tensors["instances"][p, t, at]), bool(one.tensors["reached"][p, t, at])
        right = float(one.tensors["correct"][p, t, used - 1])
        sums["right"] += weight * right
        sums["bits"] += weight * float(one.tensors["information"][p, t, used - 1])
        sums["used"] += weight * used
        sums["reached"] += weight * reached
        sums["wrong"] += weight * reached * (1 - right)
        sums["cost"] += weight * (50 * used + 20 * (used - 1)) / 100
    return sums


@pytest.mark.parametrize("protocol", ["iid", "grouped"])
def test_points_equal_a_loop_over_tuples(data, protocol):
    seeds = [cell(data, seed, protocol=protocol) for seed in range(2)]
    points = summarize(seeds, data, EVALUATION)
    assert [(p.rule, p.aim, p.value, p.seeds, p.n_max) for p in points] == [
        ("threshold", aim, value, 2, N_MAX) for aim, value in AIMS
    ]
    for at, point in enumerate(points):
        by_seed = [loops(data, seed, at, protocol) for seed in seeds]
        mean = {name: statistics.fmean(one[name] for one in by_seed) for name in by_seed[0]}
        assert point.n_accuracy == pytest.approx(mean["right"])
        assert point.ri == pytest.approx(1 + mean["bits"] / BITS, rel=1e-6)
        assert point.instances == pytest.approx(mean["used"])
        assert point.truncated == pytest.approx(1 - mean["reached"])
        assert point.cost_dense_passes == pytest.approx(mean["cost"])
        assert (point.threshold, point.validation_error) == (pytest.approx(0.55), pytest.approx(0.05))
        assert point.validation_instances == pytest.approx(2.0)
        for name in ("n_accuracy", "ri", "instances", "n_accuracy_gain", "ri_gain"):
            low, middle, high = (getattr(point, name + end) for end in ("_low", "", "_high"))
            assert low <= middle <= high
        assert 1 <= point.instances_low <= point.instances_high <= N_MAX
        if point.value != 3.0:
            assert point.error == pytest.approx(statistics.fmean(one["wrong"] / one["reached"] for one in by_seed))
            assert 0 <= point.error_low < point.error < point.error_high <= 1


def test_without_a_decision_there_is_no_error(data):
    never = summarize([cell(data)], data, EVALUATION)[-1]
    assert (never.error, never.error_low, never.error_high) == (None, None, None)
    assert never.truncated == pytest.approx(1)


def test_thresholds_that_some_seed_lacks_are_left_out(data):
    points = summarize([cell(data), cell(data, 1, aims=AIMS[1:])], data, EVALUATION)
    assert [(p.aim, p.value) for p in points] == [*AIMS[1:]]
    assert points[0].n_accuracy == pytest.approx(
        statistics.fmean(
            loops(data, one, at)["right"] for one, at in ((cell(data), 1), (cell(data, 1, aims=AIMS[1:]), 0))
        )
    )


def test_a_stop_at_a_fixed_number_gains_nothing(data):
    """After one instance, or after all of them with the same MACs, adaptive n is a fixed n on the tuples seen."""
    one = cell(data)
    points = summarize(
        [dataclasses.replace(one, meta={**one.meta, "anytime_macs": one.meta["macs"]})], data, EVALUATION
    )
    for point in points[1:]:
        for name in ("n_accuracy", "ri"):
            low, middle, high = (getattr(point, f"{name}_gain{end}") for end in ("_low", "", "_high"))
            assert middle == pytest.approx(0, abs=1e-12)
            assert low < 0 < high  # one that was not seen may stop elsewhere
            assert low == pytest.approx(-high)


def test_asking_after_every_instance_is_paid_for(data):
    fixed, anytime = costs(cell(data))
    assert fixed.tolist() == [0.5, 1.1, 1.7]
    assert anytime.tolist() == [0.5, 1.2, 1.9]


EASY = torch.tensor([[[1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [0.0, 1.0]]], dtype=torch.float64)  # [1, 4, 2]


def mean_gain(stopped: list[float], spent: list[float], fixed: list[float], validation: list[float]) -> float:
    mass = torch.full((1, 4), 0.25, dtype=torch.float64)
    columns = [torch.tensor(values, dtype=torch.float64).view(1, 4, 1) for values in (stopped, spent)]
    numbers = [torch.tensor(values, dtype=torch.float64) for values in (fixed, validation)]
    return float((mass[..., None] * gain(columns[0], EASY, columns[1], *numbers, mass)).sum())


def test_a_gain_by_hand():
    """Half the tuples are right at once; who stops there and goes on with the rest is always right, for 1.5 passes."""
    assert mean_gain([1, 1, 1, 1], [1, 1, 2, 2], [1, 2], [0.5, 1]) == pytest.approx(1 - 0.75)
    assert mean_gain([1, 1, 0, 1], [1, 1, 1, 2], [1, 2], [0.5, 1]) == pytest.approx(0.75 - 0.625)
    assert mean_gain([1, 1, 1, 1], [3, 3, 3, 3], [1, 2], [0.5, 1]) == pytest.approx(0)  # dearer than all: the best n
    assert mean_gain([1, 1, 1, 1], [1, 1, 2, 2], [1, 2], [0.5, 0.5]) == pytest.approx(1 - 0.5)  # n = 2 looks no better


def test_uncertainty_is_that_of_the_instances_that_were_looked_at(data, monkeypatch):
    """A tuple that stops early shares no more with another than what both looked at."""
    asked = []

    def record(scores, drawn, prefixes, *others):
        asked.append(list(prefixes))
        return seed_average(scores, drawn, prefixes, *others)

    monkeypatch.setattr(adaptive_n, "seed_average", record)
    one = cell(data)
    used = [math.ceil(loops(data, one, at)["used"] - 1e-6) for at in range(len(AIMS))]
    spent = [loops(data, one, at)["cost"] for at in range(len(AIMS))]
    fixed, _ = costs(one)
    afforded = [min(sum(cost - 1e-6 > number for number in fixed.tolist()), N_MAX - 1) + 1 for cost in spent]
    summarize([one], data, EVALUATION)
    assert used == [3, 1, 3]
    assert asked == [4 * used + 2 * [max(pair) for pair in zip(used, afforded, strict=True)]]


def test_numbers_that_validation_chose_badly_widen_the_interval_of_the_gain(data):
    """The standard error grows by how much a better mix would have scored on test."""
    one = cell(data)
    chance, level = torch.rand(one.tensors["correct"].shape, generator=rng.generator(0, "rising")), [0.4, 0.6, 0.8]
    flat = {"n_accuracy": [0.9, 0.5, 0.5], "information": [-0.1, -1.0, -1.0]}  # one instance looks best
    rising = {"n_accuracy": [0.1, 0.5, 0.9], "information": [-1.0, -0.5, -0.1]}

    def width(validation: dict[str, list[float]]) -> float:
        tensors = {**one.tensors, "correct": (chance < torch.tensor(level)).to(torch.uint8)}
        changed = dataclasses.replace(one, tensors=tensors, meta={**one.meta, "validation": validation})
        point = summarize([changed], data, EVALUATION)[0]
        return point.n_accuracy_gain_high - point.n_accuracy_gain_low

    assert width(flat) > width(rising) + 0.1


def test_intervals_of_the_gain_cover_it():
    """On 45 images of each class, a third did, and two thirds had no width, when every column was said to use n_max."""
    values = _adaptive_coverage.coverage(6, 0)
    assert len(values) == 3 * len(_adaptive_coverage.POPULATIONS) * 2
    assert all(value > 0.6 for name, value in values.items() if name.endswith("covered"))
    assert all(value < 0.15 for name, value in values.items() if name.endswith("no width"))
    assert all(0.3 < value < 3 for name, value in values.items() if name.endswith(": width"))


def test_hull_is_above_every_mix_of_two():
    stream = rng.generator(0, "hull")
    for _ in range(20):
        cost = torch.rand(6, generator=stream).cumsum(0).tolist()
        scores = torch.rand(6, generator=stream).tolist()
        corners = hull(cost, scores)
        for at in (*cost, *(0.5 * (a + b) for a, b in itertools.pairwise(cost))):
            mixes = [
                scores[i] + (at - cost[i]) / (cost[j] - cost[i]) * (scores[j] - scores[i])
                for i, j in itertools.combinations(range(6), 2)
                if cost[i] <= at <= cost[j]
            ]
            cheaper = [score for c, score in zip(cost, scores, strict=True) if c <= at]
            assert interpolated(corners, cost, scores, at) == pytest.approx(max(*mixes, *cheaper))


def interpolated(corners: list[int], cost: list[float], scores: list[float], at: float) -> float:
    for i, j in itertools.pairwise(corners):
        if at <= cost[j]:
            return scores[i] + (at - cost[i]) / (cost[j] - cost[i]) * (scores[j] - scores[i])
    return scores[corners[-1]]


def derivative(statistic: Any, mass: Tensor, tuple_: int) -> Tensor:
    """How a statistic moves when one tuple weighs a little more."""
    step = 1e-6
    more = mass * (1 - step)
    more.view(-1)[tuple_] += step
    return (statistic(more) - statistic(mass)) / step


def test_scores_of_ratios_and_gains_spread_as_the_statistics_do():
    """Deviations of the scores are the statistics' derivatives by the weight of each tuple."""
    stream = rng.generator(0, "derivative")
    mass = torch.rand(2, 5, generator=stream, dtype=torch.float64)
    mass /= mass.sum()
    part, whole = (torch.rand(2, 5, 3, generator=stream, dtype=torch.float64) + 0.1 for _ in range(2))
    everywhere = torch.rand(2, 5, 4, generator=stream, dtype=torch.float64)
    spent = torch.rand(2, 5, 3, generator=stream, dtype=torch.float64) * 2 + 1
    fixed, validation = torch.arange(1.0, 5.0).double(), torch.tensor([0.1, 0.5, 0.7, 0.8], dtype=torch.float64)

    def mean(scores: Tensor, weights: Tensor) -> Tensor:
        return torch.einsum("pt,ptm->m", weights, scores)

    def ratio_of(weights: Tensor) -> Tensor:
        return mean(part, weights) / mean(whole, weights)

    def gain_of(weights: Tensor) -> Tensor:
        return mean(gain(part, everywhere, spent, fixed, validation, weights), weights)

    for scores, statistic in (
        (ratio(part, whole, mass), ratio_of),
        (gain(part, everywhere, spent, fixed, validation, mass), gain_of),
    ):
        torch.testing.assert_close(mean(scores, mass), statistic(mass))
        for at in range(10):
            expected = scores.flatten(0, 1)[at] - mean(scores, mass)
            torch.testing.assert_close(derivative(statistic, mass, at), expected, rtol=1e-3, atol=1e-4)


def test_what_one_more_unusual_tuple_would_change_is_in_the_gains_alone() -> None:
    scores = torch.zeros(2, 1, 4, 6, dtype=torch.float64)
    scores[:, 0, 2, 4:] = torch.tensor([[0.5, -3.0], [1.5, -1.0]]).double()  # means over seeds 1 and -2
    drawn = Tuples(torch.arange(4).view(1, 4, 1), torch.tensor([[0, 0, 1, 1]]), torch.full((1, 4), 0.25))
    averaged = seed_average(scores, drawn, (1,) * 6, 4)
    unseen = adaptive_n._unseen(scores, averaged, torch.tensor([4.0, 2.0]).double(), 3.0)
    assert unseen.tolist() == pytest.approx([(1 - 0.25) / 4, (2 - 0.5) / 2])
    wider = adaptive_n._unsure(averaged, torch.tensor([0.1, 0.0]).double(), unseen)
    added = wider.spread.of_images - averaged.spread.of_images
    assert added.tolist() == pytest.approx([0, 0, 0, 0, 0.75**2 / 16 + 0.01, 0.75**2])


def test_where_all_tuples_gain_the_same_an_unseen_one_may_gain_a_label() -> None:
    scores = torch.full((2, 1, 4, 6), 0.125, dtype=torch.float64)
    drawn = Tuples(torch.arange(4).view(1, 4, 1), torch.tensor([[0, 0, 1, 1]]), torch.full((1, 4), 0.25))
    averaged = seed_average(scores, drawn, (1,) * 6, 4)
    unseen = adaptive_n._unseen(scores, averaged, torch.tensor([4.0, 2.0]).double(), 3.0)
    assert unseen.tolist() == pytest.approx([1 / 4, 3 / 2])
