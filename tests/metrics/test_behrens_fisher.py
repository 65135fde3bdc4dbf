from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sharedlabel.metrics.behrens_fisher import Spread, p_value, quantile
from sharedlabel.rng import generator


def _spread(of_images: float, of_seeds: float, seed_freedom: float, image_freedom: float = torch.inf) -> Spread:
    return Spread(*(torch.tensor([v], dtype=torch.float64) for v in (of_images, image_freedom, of_seeds, seed_freedom)))


def _p(difference: float, spread: Spread) -> float:
    return float(p_value(torch.tensor([difference], dtype=torch.float64), spread))


@pytest.mark.parametrize("freedom", [1, 2, 4, 5.5, 9])
@pytest.mark.parametrize("ratio", [0.5, 3.0, 20.0])
def test_seeds_alone_are_students_t_far_into_the_tail(freedom: float, ratio: float) -> None:
    assert _p(ratio, _spread(0, 1, freedom)) == pytest.approx(2 * stats.t.sf(ratio, freedom), rel=1e-4)
    assert _p(ratio, _spread(1, 0, freedom, freedom)) == pytest.approx(2 * stats.t.sf(ratio, freedom), rel=1e-9)


def test_both_together_by_numerical_integration() -> None:
    """E[2 Phi(-d / sqrt(I + k V / X))], X chi-squared, on a fine grid of its quantiles."""
    quantiles = stats.chi2(4).ppf((np.arange(200_000) + 0.5) / 200_000)
    for of_images, of_seeds, difference in ((1.0, 0.1, 2.0), (1.0, 1.0, 3.0), (1.0, 5.0, 9.0)):
        expected = np.mean(2 * stats.norm.sf(difference / np.sqrt(of_images + 4 * of_seeds / quantiles)))
        assert _p(difference, _spread(of_images, of_seeds, 4)) == pytest.approx(expected, rel=1e-3)


def test_a_variance_that_comes_out_small_does_not_collapse_the_threshold() -> None:
    """Three seeds with nearly equal means: the Welch-Satterthwaite t has 210 degrees of freedom here, p = 0.0001."""
    spread = _spread(1.0, 0.1, 2)
    welch = 1.1**2 / (0.1**2 / 2)
    assert 2 * stats.t.sf(4.2 / 1.1**0.5, welch) < 1.1e-4
    assert _p(4.2, spread) > 0.005


def test_null_p_values_are_uniform_or_above_in_the_tail() -> None:
    stream, trials = generator(0, "tail"), 40_000
    for ratio in (0.3, 3.0):
        seeds = torch.randn(trials, 5, generator=stream, dtype=torch.float64) * (5 * ratio) ** 0.5
        mean = torch.randn(trials, generator=stream, dtype=torch.float64) + seeds.mean(1)
        of_seeds = seeds.var(1) / 5
        one = torch.ones_like(mean)
        found = p_value(mean, Spread(one, one * torch.inf, of_seeds, 4 * one))
        for level in (0.05, 0.01, 0.001):
            limit = level * trials + 3 * (level * trials) ** 0.5
            assert float((found < level).sum()) <= limit


@pytest.mark.parametrize("freedom", [2, 4, 7.5])
@pytest.mark.parametrize("missed", [0.05, 1e-3, 1e-5])
def test_quantiles_are_where_the_p_value_is_the_chance_to_miss(freedom: float, missed: float) -> None:
    for share in (0.0, 0.003, 0.2, 0.7, 1.0):
        spread = _spread(1 - share, share, freedom, 80)
        half = float(quantile(1 - missed, spread) * spread.se)
        assert _p(half, spread) == pytest.approx(missed, rel=0.02)


def test_no_difference_and_no_spread() -> None:
    assert _p(0.0, _spread(0, 0, 1)) == 1
    assert _p(0.3, _spread(0, 0, 1)) == 0
