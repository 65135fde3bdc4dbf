from __future__ import annotations

import itertools
import math
import statistics
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information

from sharedlabel.errors import DataError
from sharedlabel.metrics import information
from sharedlabel.rng import generator


def _random(tuples: int = 400, prefixes: int = 3, classes: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(0, "information")
    labels = torch.randint(classes, (tuples,), generator=stream)
    logits = torch.randn(tuples, prefixes, classes, generator=stream)
    logits[torch.arange(tuples), :, labels] += torch.arange(prefixes)
    return logits.log_softmax(2), labels, torch.rand(tuples, generator=stream)


def test_entropy_of_uniform_and_impossible_labels() -> None:
    assert information.label_entropy(torch.full((8,), 1 / 8).log()) == pytest.approx(3)
    assert information.label_entropy(torch.tensor([0.5, 0.5, 0.0]).log()) == pytest.approx(1)


def test_floor_is_a_mixture_with_uniform() -> None:
    log_posterior = torch.tensor([[[1.0, 0.0, 0.0]]]).log()
    floored = information.floor_posterior(log_posterior, 0.3).exp()
    assert floored.flatten().tolist() == pytest.approx([0.8, 0.1, 0.1])
    assert floored.dtype == torch.float64


def test_floor_keeps_order_and_normalisation_of_extreme_posteriors() -> None:
    log_posterior = torch.tensor([[[0.0, -500.0, -1e5, -1e30]]])
    floored = information.floor_posterior(log_posterior)
    assert floored.exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert floored.min().item() == pytest.approx(math.log(information.FLOOR / 4), abs=1e-6)
    assert floored.argmax().item() == 0


def test_posterior_gain_is_entropy_less_log_loss() -> None:
    log_posterior, labels, weights = _random()
    log_posterior = log_posterior.double().log_softmax(2)
    gain = information.posterior_gain(information.log2_posterior_of_label(log_posterior, labels), weights, 2.0)
    for k in range(3):
        loss = log_loss(labels, log_posterior[:, k].exp(), sample_weight=weights) / math.log(2)
        assert gain[k].item() == pytest.approx(2.0 - loss)


def test_posterior_gain_is_zero_for_the_prior_and_negative_below_it() -> None:
    prior = torch.tensor([0.7, 0.3], dtype=torch.float64)
    labels = torch.tensor([0] * 7 + [1] * 3)
    entropy = information.label_entropy(prior.log())
    for posterior, sign in ((prior, 0), (prior.flip(0), -1)):
        log2 = information.log2_posterior_of_label(posterior.log().expand(10, 1, 2), labels)
        gain = information.posterior_gain(log2, None, entropy).item()
        assert gain == pytest.approx(0, abs=1e-12) if sign == 0 else gain < -0.4


def test_confusion_is_a_weighted_joint_distribution() -> None:
    log_posterior = torch.tensor([[[0.9, 0.1]], [[0.2, 0.8]], [[0.5, 0.5]]]).log()
    joint = information.confusion(log_posterior, torch.tensor([0, 0, 1]), torch.tensor([2.0, 1.0, 1.0]))
    assert joint.tolist() == [[[0.5, 0.25], [0.25, 0.0]]]


def test_decision_gain_is_the_mutual_information_of_the_decisions() -> None:
    log_posterior, labels, _ = _random()
    gain = information.decision_gain(information.confusion(log_posterior, labels))
    for k in range(3):
        expected = mutual_info_score(labels, log_posterior[:, k].argmax(1)) / math.log(2)
        assert gain[k].item() == pytest.approx(expected)


def test_decision_gain_is_normalised_by_the_entropy_of_the_label() -> None:
    """Decisions that only ever name one of two pairs: H(decision) = 1 bit, H(Y) = 2 bits, information = 1 bit."""
    labels = torch.arange(4)
    posterior = torch.zeros(4, 1, 4)
    posterior[torch.arange(4), 0, labels // 2 * 2] = 1.0
    gain = information.decision_gain(information.confusion(posterior.log(), labels))
    entropy = information.label_entropy(torch.full((4,), 0.25).log())
    assert information.share_of_entropy(gain, entropy).item() == pytest.approx(0.5)
    assert (gain / 1.0).item() == pytest.approx(1.0), "normalised by the decision's entropy it would claim everything"


@pytest.mark.parametrize(("table", "expected"), [([[3, 1], [0, 4]], None), ([[4, 0], [0, 4]], 1), ([[2, 2]] * 2, None)])
def test_adjusting_for_chance_by_hand(table: list[list[int]], expected: float | None) -> None:
    """The share of H(Y) = 1 bit above the mean over all permutations of the decisions, which are enumerated."""
    counts = torch.tensor(table, dtype=torch.float64)
    labels, decisions = (
        [index for index, count in enumerate(counts.sum(axis)) for _ in range(int(count))] for axis in (1, 0)
    )
    null = statistics.mean(
        mutual_info_score(labels, permuted) / math.log(2) for permuted in set(itertools.permutations(decisions))
    )
    plug_in = information.decision_gain(counts[None] / 8)
    adjusted = information.decision_gain_adjusted(
        plug_in, information.decision_gain_null(counts[None] / 8, 8), 1.0
    ).item()
    assert adjusted == pytest.approx((plug_in.item() - null) / (1 - null) if expected is None else expected)


def test_where_chance_alone_tells_labels_apart_nothing_is_left_to_know() -> None:
    """One tuple of each label: any decisions that differ look like knowledge."""
    joint = torch.eye(5, dtype=torch.float64)[None] / 5
    gain, null = information.decision_gain(joint), information.decision_gain_null(joint, 5)
    assert gain.item() == pytest.approx(null.item()) == pytest.approx(math.log2(5))
    assert information.decision_gain_adjusted(gain, null, math.log2(5)).item() == 0


@given(
    st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), min_size=3, max_size=3).filter(
        lambda table: sum(map(sum, table)) > 1
    )
)
@settings(max_examples=30, deadline=None)
def test_null_is_the_permutation_expectation(table: list[list[int]]) -> None:
    counts = torch.tensor(table, dtype=torch.float64)
    samples = int(counts.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = expected_mutual_information(counts.long().numpy(), samples) / math.log(2)
    null = information.decision_gain_null((counts / samples)[None], samples)
    assert null.item() == pytest.approx(expected, abs=1e-9)


def test_null_shows_how_biased_the_plug_in_is_with_many_classes() -> None:
    stream = generator(0, "null")
    labels = torch.arange(1000) % 100
    decisions = torch.randint(100, (20, 1000), generator=stream)
    log_posterior = torch.nn.functional.one_hot(decisions.T, 100).float().log_softmax(2)  # [t, n = draws, c]
    joint = information.confusion(log_posterior, labels)
    observed = information.decision_gain(joint).mean().item()
    assert information.decision_gain_null(joint, 1000).mean().item() == pytest.approx(observed, rel=0.01)
    assert observed / math.log2(100) == pytest.approx(0.5, abs=0.02)


def test_null_rounds_fractional_margins_to_whole_tuples() -> None:
    joint = torch.full((1, 3, 3), 1 / 9, dtype=torch.float64)
    whole = torch.tensor([[[4.0, 0, 0], [0, 3, 0], [0, 0, 3]]], dtype=torch.float64) / 10
    assert information.decision_gain_null(joint, 10).item() == pytest.approx(
        information.decision_gain_null(whole, 10).item()
    )


@pytest.mark.parametrize(
    ("shares", "samples", "counts"),
    [([0.26, 0.33, 0.41], 10, [3, 3, 4]), ([0.25, 0.25, 0.5], 2, [1, 0, 1]), ([0.1, 0.2, 0.7], 10, [1, 2, 7])],
    ids=["the largest remainder", "the first of equal ones", "none left"],
)
def test_shares_are_rounded_to_whole_tuples(shares: list[float], samples: int, counts: list[int]) -> None:
    given = torch.tensor([shares, [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert information._whole(given, samples).tolist() == [counts, [samples, 0, 0]]


@pytest.mark.parametrize("classes", [2, 5, 100])
def test_accuracy_gain_is_the_information_of_a_symmetric_channel(classes: int) -> None:
    accuracy = torch.tensor([0.0, 1 / classes, 0.8, 1.0], dtype=torch.float64)
    gain = information.accuracy_gain(accuracy, classes)
    channel = torch.full((classes, classes), 0.2 / (classes - 1) / classes, dtype=torch.float64)
    channel.fill_diagonal_(0.8 / classes)
    assert gain[:2].tolist() == [0.0, 0.0]
    assert gain[2].item() == pytest.approx(information.decision_gain(channel[None]).item())
    assert gain[3].item() == pytest.approx(math.log2(classes))


def test_the_share_of_entropy_is_a_share_of_less_than_a_bit_too() -> None:
    assert information.share_of_entropy(torch.tensor([0.25]), 0.5).item() == 0.5


def test_the_share_of_entropy_refuses_a_certain_label() -> None:
    with pytest.raises(DataError, match=r"label entropy of 0\.0 bits"):
        information.share_of_entropy(torch.ones(1), 0.0)
