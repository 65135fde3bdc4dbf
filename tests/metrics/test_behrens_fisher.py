from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from sharedlabel.metrics.behrens_fisher import Spread, p_value, quantile
from sharedlabel.rng import generator


def _spread(of_images: float, of_seeds: float, seed_freedom: float, image_freedom: float = torch.inf) -> Spread:
    return Spread(*(torch.tensor([v], dtype=torch.float64) for v in (of_images, image_freedom, of_seeds, seed_freedom)))


def _p(difference: float, spread: Spread) -> float:
    return float(p_value(torch.tensor([difference], dtype=torch.float64), spread))


@pytest.mark.parametrize("freedom", [1, 2, 4, 5.5, 9, 25, 80])
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
        p_values = p_value(mean, Spread(one, one * torch.inf, of_seeds, 4 * one))
        for level in (0.05, 0.01, 0.001):
            limit = level * trials + 3 * (level * trials) ** 0.5
            assert float((p_values < level).sum()) <= limit


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


@pytest.mark.parametrize(
    ("difference", "of_images", "image_freedom", "of_seeds", "seed_freedom"),
    [(2.5, 1.0, 10.0, 0.5, 3.0), (4.0, 1.0, 20.0, 2.0, 4.0), (3.0, 2.0, 5.0, 0.3, 2.0), (2.0, 1.0, 999.0, 0.2, 3.0)],
)
def test_few_images_and_few_seeds_by_numerical_integration(
    difference: float, of_images: float, image_freedom: float, of_seeds: float, seed_freedom: float
) -> None:
    def density(log_x: float) -> float:
        x = np.exp(log_x)
        total = of_images + seed_freedom * of_seeds / x
        tails = 2 * stats.t.sf(difference / total**0.5, image_freedom * (total / of_images) ** 2)
        return float(tails * stats.chi2(seed_freedom).pdf(x) * x)

    expected = integrate.quad(density, -40, 8, limit=500, epsabs=1e-14)[0]
    p = _p(difference, _spread(of_images, of_seeds, seed_freedom, image_freedom))
    assert p == pytest.approx(expected, rel=1e-6)


def test_images_count_as_known_from_a_thousand_degrees_of_freedom() -> None:
    gaussian = 2 * stats.norm.sf(3.0)
    for freedom in (1000.0, 1e6):
        assert _p(3.0, _spread(1, 0, 1, freedom)) == pytest.approx(gaussian, rel=1e-12)
    assert _p(3.0, _spread(1, 0, 1, 999.0)) == pytest.approx(2 * stats.t.sf(3.0, 999), rel=1e-9)


@pytest.mark.parametrize("freedom", [1.0, 2.0, 4.0, 9.0])
def test_quantiles_of_one_part_alone_are_students(freedom: float) -> None:
    for missed in (0.7, 0.5, 0.05, 1e-3, 1e-6):
        expected = stats.t.isf(missed / 2, freedom)
        assert float(quantile(1 - missed, _spread(0, 3, freedom))) == pytest.approx(expected, rel=2e-4)
        assert float(quantile(1 - missed, _spread(3, 0, 1, freedom))) == pytest.approx(expected, rel=1e-5)


def test_many_means_at_once_are_those_of_each_alone() -> None:
    """Means of several kinds: degrees of freedom, shares and levels, in an order that is not sorted."""
    parts = [
        (1.0, 30.0, 0.5, 4.0),
        (2.0, 8.0, 0.0, 4.0),
        (0.0, 30.0, 1.0, 2.0),
        (1.0, 30.0, 3.0, 4.0),
        (1.0, 5.0, 0.5, 2.0),
    ]
    spread = Spread(*(column.view(5, 1) for column in torch.tensor(parts, dtype=torch.float64).T))
    means = torch.tensor([2.0, -3.0, 4.0, 0.0, 1.0], dtype=torch.float64)[:, None]
    levels = torch.tensor([0.95, 0.99, 0.95, 0.9, 0.99], dtype=torch.float64)[:, None]
    together, halves = p_value(means, spread), quantile(levels, spread)
    assert together.shape == halves.shape == (5, 1)
    for at in range(5):
        assert torch.equal(p_value(means[at], spread[at]), together[at])
        assert torch.equal(quantile(levels[at], spread[at]), halves[at])
    assert len({float(half) for half in halves}) == 5
    nothing = spread[torch.zeros(5, dtype=torch.bool)]
    assert p_value(means[:0], nothing).shape == quantile(0.95, nothing).shape == (0, 1)


def test_a_spread_in_another_unit_gives_the_same_p_value() -> None:
    spread = _spread(4.0, 8.0, 3, 20)
    assert [float(part) for part in vars(spread.scaled(2.0)).values()] == [1, 20, 2, 3]
    assert float(spread.se) == 12**0.5
    for unit in (0.5, 2.0, 20.0):
        assert _p(6.0 / unit, spread.scaled(unit)) == pytest.approx(_p(6.0, spread), rel=1e-12)


def test_without_any_spread_the_quantile_is_that_of_images() -> None:
    assert float(quantile(0.95, _spread(0, 0, 1))) == pytest.approx(1.959964, rel=1e-5)
    assert float(quantile(0.95, _spread(0, 0, 1, 7))) == pytest.approx(stats.t.isf(0.025, 7), rel=1e-5)


@pytest.mark.parametrize("freedom", [1, 3, 30, 200])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_without_variance_between_seeds_quantiles_are_those_of_students_t(freedom: float, level: float) -> None:
    spread = _spread(2.0, 0.0, 1, freedom)
    assert float(quantile(level, spread)) == pytest.approx(stats.t.ppf((1 + level) / 2, freedom), rel=1e-9)
    known = _spread(2.0, 0.0, 1)
    assert float(quantile(level, known)) == pytest.approx(stats.norm.ppf((1 + level) / 2), rel=1e-12)
