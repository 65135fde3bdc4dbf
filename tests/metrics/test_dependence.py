"""Effective numbers of instances, against a simulation of the model that they follow from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sharedlabel import rng
from sharedlabel.errors import DataError
from sharedlabel.metrics.dependence import break_even, correlation, effective_instances, equal_instances
from sharedlabel.metrics.gain import information_gain


def gained(count: int, rho: float, draws: int = 60_000) -> float:
    """Bits that exact Bayes gains from the mean of so many instances of four classes at unit distance, correlated."""
    draw = rng.generator(0, "model", str(count), str(rho))
    labels = torch.randint(4, (draws,), generator=draw)
    means = 1.2 * torch.eye(4, dtype=torch.float64)
    shared = math.sqrt(rho) * torch.randn(draws, 4, generator=draw, dtype=torch.float64)
    own = math.sqrt(1 - rho) * torch.randn(draws, count, 4, generator=draw, dtype=torch.float64)
    mean = (means[labels][:, None] + shared[:, None] + own).mean(1)
    variance = rho + (1 - rho) / count
    scores = -(mean[:, None] - means).square().sum(2) / (2 * variance)
    return float(information_gain(scores[:, None], labels, log_prior=torch.full((4,), 0.25).log()))


@pytest.mark.parametrize(("count", "rho", "worth"), [(4, 1 / 3, 2), (7, 1 / 6, 3.5), (3, 1.0, 1)])
def test_correlated_instances_say_what_as_many_independent_ones_do(count, rho, worth):
    assert float(effective_instances(torch.tensor([float(count)]), rho)) == pytest.approx(worth)
    low, high = math.floor(worth), math.ceil(worth)
    independent = [gained(one, 0.0) for one in (low, high)]
    assert independent[0] - 0.01 <= gained(count, rho) <= independent[1] + 0.01
    if low == high:
        assert gained(count, rho) == pytest.approx(independent[0], abs=0.01)


@pytest.mark.parametrize("rho", [0.0, 0.05, 0.4, 1.0])
def test_the_correlation_is_found_again(rho):
    n = torch.tensor([2.0, 5.0, 16.0])
    for size, worth in zip(n.tolist(), effective_instances(n, rho).tolist(), strict=True):
        assert correlation(size, worth) == pytest.approx(rho, abs=1e-12)
        assert 1 <= worth <= min(size, 1 / rho if rho else size) + 1e-12


def test_information_is_looked_up_in_a_curve_that_never_falls():
    n, curve = [1, 2, 4, 8], [0.2, 0.5, 0.45, 0.9]
    found = equal_instances([0.1, 0.2, 0.35, 0.7, 0.9, 0.95], n, curve)
    assert np.isnan(found[[0, 5]]).all()
    assert found[1:5] == pytest.approx([1, math.sqrt(2), 4, 8])  # 4 is half way from 2 to 8
    assert equal_instances([0.6], [1, 2, 4], [0.4, 0.6, 0.5]).tolist() == pytest.approx([2])
    assert equal_instances([0.6], [1, 2, 4, 8], [0.4, 0.6, 0.6, 0.8]).tolist() == pytest.approx([2])


def test_compressing_pays_below_the_break_even_and_not_above():
    images, needed = 8.0, 2.5
    limit = break_even(images, needed)
    for rho, pays in ((limit - 0.01, True), (limit + 0.01, False)):
        assert (float(effective_instances(torch.tensor([images]), rho)) > needed) == pays
    assert break_even(1e9, needed) == pytest.approx(1 / needed, rel=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: effective_instances(torch.tensor([0.5]), 0.1), "numbers of instances"),
        (lambda: effective_instances(torch.tensor([2.0]), 1.5), r"a correlation in \[0, 1\], got 1.5"),
        (lambda: correlation(1, 1), "n above 1 and a positive number of independent instances, got 1 and 1"),
        (lambda: correlation(4, 0), "got 4 and 0"),
        (lambda: equal_instances([0.1], [1], [0.2]), "two rising numbers of instances or more"),
        (lambda: equal_instances([0.1], [0, 2], [0.2, 0.3]), r"got n = \[0, 2\]"),
        (lambda: equal_instances([0.1], [1, 2], [0.2, math.nan]), "a curve of numbers"),
        (lambda: equal_instances([0.1], [2, 2], [0.2, 0.3]), r"got n = \[2, 2\]"),
    ],
)
def test_what_means_nothing_is_refused(call, message):
    with pytest.raises(DataError, match=message):
        call()
