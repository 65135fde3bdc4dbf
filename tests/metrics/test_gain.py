"""Information of posteriors in one call, against what it is made of and against its definition."""

from __future__ import annotations

import math

import pytest
import torch

from sharedlabel.metrics import gain, information
from sharedlabel.rng import generator


@pytest.fixture
def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    stream = generator(0, "gain")
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 0, 1, 2, 0])
    return torch.randn(10, 3, 4, generator=stream), labels, torch.rand(10, generator=stream)


@pytest.mark.parametrize("weighted", [True, False])
def test_gain_is_the_entropy_of_the_frequencies_less_what_is_missing(data, weighted) -> None:
    scores, labels, weights = data
    mass = (weights if weighted else torch.ones(10)).double()
    share = torch.stack([mass[labels == label].sum() for label in range(4)]) / mass.sum()
    entropy = -sum(float(p) * math.log2(p) for p in share if p > 0)
    floored = (1 - 1e-6) * scores.double().softmax(-1) + 1e-6 / 4
    bits = torch.log2(floored[torch.arange(10), :, labels])
    expected = entropy + mass @ bits / mass.sum()
    given = (scores, labels, weights if weighted else None)
    torch.testing.assert_close(gain.information_gain(*given), expected)
    torch.testing.assert_close(gain.relative_information(*given), expected / entropy)


def test_a_prior_takes_the_place_of_the_frequencies(data) -> None:
    scores, labels, _ = data
    prior = torch.tensor([0.1, 0.2, 0.3, 0.4])
    entropy = information.label_entropy(prior.log())
    difference = gain.information_gain(scores, labels, log_prior=prior.log()) - gain.information_gain(scores, labels)
    torch.testing.assert_close(
        difference, torch.full_like(difference, entropy - gain.entropy_of(torch.tensor([5.0, 3, 2, 0])))
    )
    relative = gain.relative_information(scores, labels, log_prior=prior.log())
    torch.testing.assert_close(relative, gain.information_gain(scores, labels, log_prior=prior.log()) / entropy)


def test_posteriors_that_are_the_frequencies_tell_nothing_and_sure_ones_everything() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    frequencies = torch.tensor([0.5, 0.25, 0.25]).log().expand(4, 1, 3)
    assert gain.information_gain(frequencies, labels).item() == pytest.approx(0, abs=1e-5)
    sure = torch.nn.functional.one_hot(labels, 3)[:, None].double().log()
    assert gain.relative_information(sure, labels).item() == pytest.approx(1, abs=1e-5)
    wrong = sure.roll(1, dims=2)
    assert gain.relative_information(wrong, labels).item() == pytest.approx(1 + math.log2(1e-6 / 3) / 1.5, abs=1e-4)
