"""Stopping times and thresholds, against loops over tuples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from sharedlabel import rng
from sharedlabel.errors import DataError
from sharedlabel.metrics import stopping

TUPLES, N, CLASSES = 40, 5, 3


@pytest.fixture
def log_posterior() -> Tensor:
    scores = 2 * torch.randn(TUPLES, N, CLASSES, generator=rng.generator(0, "stopping"), dtype=torch.float64)
    return scores.log_softmax(2)


@pytest.fixture
def right() -> Tensor:
    return torch.rand(TUPLES, N, generator=rng.generator(0, "right")) < 0.7


@pytest.fixture
def weights() -> Tensor:
    return torch.rand(TUPLES, generator=rng.generator(0, "weights"), dtype=torch.float64)


def stop_of(confidences: list[float], threshold: float) -> tuple[int, bool]:
    for used, confidence in enumerate(confidences, start=1):
        if confidence >= threshold:
            return used, True
    return len(confidences), False


def test_confidences_are_the_two_largest_probabilities(log_posterior):
    largest, margin = stopping.largest(log_posterior), stopping.margin(log_posterior)
    for t in range(TUPLES):
        for k in range(N):
            first, second, *_ = sorted((math.exp(float(v)) for v in log_posterior[t, k]), reverse=True)
            assert float(largest[t, k]) == pytest.approx(first)
            assert float(margin[t, k]) == pytest.approx(first - second)


@pytest.mark.parametrize("confidence", [stopping.largest, stopping.margin])
def test_a_tuple_stops_where_a_loop_over_its_instances_does(log_posterior, confidence):
    values = confidence(log_posterior)
    thresholds = torch.cat([torch.tensor([0.0, 0.5, 0.8, 1.0], dtype=torch.float64), values[:4, 2]])  # some hit exactly
    stops = stopping.stops(values, thresholds)
    for t in range(TUPLES):
        for m, threshold in enumerate(thresholds.tolist()):
            used, reached = stop_of(values[t].tolist(), threshold)
            assert (int(stops.instances[t, m]), bool(stops.reached[t, m])) == (used, reached)


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_higher_threshold_never_uses_fewer_instances(rows, one, other):
    confidence = torch.tensor(rows, dtype=torch.float64)
    stops = stopping.stops(confidence, torch.tensor(sorted((one, other)), dtype=torch.float64))
    assert bool((stops.instances[:, 0] <= stops.instances[:, 1]).all())
    assert bool((stops.reached[:, 0] >= stops.reached[:, 1]).all())
    assert 1 <= int(stops.instances.min()) <= int(stops.instances.max()) <= 3


def test_rates_are_weighted_shares_over_tuples(log_posterior, right, weights):
    values = stopping.largest(log_posterior)
    thresholds = stopping.candidates(values)
    rates = stopping.rates(stopping.stops(values, thresholds), right, weights)
    mass = (weights / weights.sum()).tolist()
    for m, threshold in enumerate(thresholds.tolist()):
        wrong = decided = instances = 0.0
        for t in range(TUPLES):
            used, reached = stop_of(values[t].tolist(), threshold)
            instances += mass[t] * used
            decided += mass[t] * reached
            wrong += mass[t] * (reached and not right[t, used - 1])
        assert float(rates.instances[m]) == pytest.approx(instances)
        assert float(rates.truncated[m]) == pytest.approx(1 - decided, abs=1e-12)
        assert float(rates.error[m]) == pytest.approx(wrong / decided if decided else math.nan, nan_ok=True)
    assert float(rates.instances[0]) == 1
    assert float(rates.truncated[-1]) == pytest.approx(1)
    assert math.isnan(float(rates.error[-1]))


def test_thresholds_to_choose_from_reach_from_the_first_instance_to_the_last(log_posterior):
    values = stopping.candidates(stopping.largest(log_posterior))
    assert values.tolist() == sorted(set(values.tolist()))
    assert (float(values[0]), float(values[-1])) == (0.0, 1.0)


def test_no_threshold_lies_within_rounding_of_a_confidence(log_posterior):
    stream = rng.generator(0, "many")
    many = torch.rand(4000, 6, generator=stream, dtype=torch.float64).pow(0.05)
    clumped = torch.cat([1 - 1e-6 * many, torch.full((4000, 6), 0.75, dtype=torch.float64)])
    for values in (stopping.largest(log_posterior), many, clumped):
        thresholds = stopping.candidates(values)
        assert (float(thresholds[0]), float(thresholds[-1])) == (0.0, 1.0)
        assert len(thresholds) <= 503
        inside = thresholds[1:-1]
        distance = (inside[:, None] - values.cummax(1).values.flatten()).abs().amin(1)
        assert bool((distance >= (1e-6 + 1e-4 * (1 - inside)) / 2.1).all())
        noise = distance.min() / 2 * (2 * torch.rand(values.shape, generator=stream, dtype=torch.float64) - 1)
        shaken = (values + noise).clamp(0, 1)
        assert torch.equal(stopping.stops(values, inside).instances, stopping.stops(shaken, inside).instances)
    assert 100 < len(stopping.candidates(many)) <= 503
    assert len(stopping.candidates(clumped)) == 3  # one between the two clumps
    assert stopping.candidates(many[:1, :1]).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("error", [0.5, 0.3, 0.1])
def test_the_lowest_threshold_that_keeps_the_error_is_chosen(log_posterior, right, error):
    values = stopping.largest(log_posterior)
    rates = stopping.rates(stopping.stops(values, stopping.candidates(values)), right)
    images = TUPLES * N

    def careful(m: int) -> float:
        decided = 1 - float(rates.truncated[m])
        if decided < 1e-9:
            return 1.0
        decisions = images / float(rates.instances[m]) * decided
        return (decisions * float(rates.error[m]) + 1) / (decisions + 1)

    kept = [m for m in range(len(rates.error)) if careful(m) <= error]
    assert stopping.for_error(rates, error, images / rates.instances) == (kept[0] if kept else None)
    if kept:
        assert float(rates.error[kept[0]]) < error


def test_only_tuples_that_reach_the_threshold_count_as_decisions():
    """Of a hundred units a tenth decide: ten right decisions promise 1 / 11, not 1 / 101."""
    none, one, rare = (torch.tensor([value], dtype=torch.float64) for value in (0.0, 1.0, 0.9))
    units = torch.tensor([100.0])
    assert stopping.for_error(stopping.Rates(none, one, none), 0.02, units) == 0
    assert stopping.for_error(stopping.Rates(none, one, rare), 0.02, units) is None
    assert stopping.for_error(stopping.Rates(none, one, rare), 0.095, units) == 0


def test_a_few_right_decisions_promise_no_small_error():
    confidence, right = torch.tensor([[0.9]] * 20), torch.ones(20, 1, dtype=torch.bool)
    rates = stopping.rates(stopping.stops(confidence, stopping.candidates(confidence)), right)
    assert stopping.for_error(rates, 0.04, 20 / rates.instances) is None
    assert stopping.for_error(rates, 0.05, 20 / rates.instances) == 0
    assert stopping.for_error(rates, 0.01, 99 / rates.instances) == 0


def test_the_highest_threshold_within_a_mean_number_of_instances_is_chosen(log_posterior, right):
    values = stopping.largest(log_posterior)
    rates = stopping.rates(stopping.stops(values, stopping.candidates(values)), right)
    for wanted in (1.0, 1.7, 3.0, 5.0):
        at = stopping.for_instances(rates, wanted)
        assert float(rates.instances[at]) <= wanted + 1e-9
        assert at == len(rates.instances) - 1 or float(rates.instances[at + 1]) > wanted
    assert stopping.for_instances(rates, 5.0) == len(rates.instances) - 1


@pytest.mark.parametrize("error", [0.0, 1.0, -0.1, 1.5, math.nan])
def test_a_nominal_error_outside_the_open_interval_is_refused(error):
    rates = stopping.Rates(*(torch.zeros(1, dtype=torch.float64) for _ in range(3)))
    with pytest.raises(DataError, match=rf"a nominal error in \(0, 1\), got {error:g}; 0.02 lets 2% of"):
        stopping.for_error(rates, error, torch.tensor([10.0]))


@pytest.mark.parametrize("confidence", [stopping.largest, stopping.margin])
def test_a_posterior_that_is_not_a_number_is_refused(log_posterior, confidence):
    log_posterior[3, 1, 0] = math.nan
    with pytest.raises(DataError, match="expected finite log-posteriors, got nan; check the aggregator"):
        confidence(log_posterior)
