from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from sharedlabel.metrics.behrens_fisher import Spread
from sharedlabel.metrics.intervals import bonferroni, interval, loss_interval, rule_of_three, wilson
from sharedlabel.rng import generator


def _t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _images(*variances: float, freedom: float = torch.inf) -> Spread:
    """The spread of means over images alone."""
    of_images = _t(*variances)
    return Spread(of_images, torch.full_like(of_images, freedom), 0 * of_images, 1 + 0 * of_images)


def test_interval_over_images_or_seeds_alone_is_students() -> None:
    spread = Spread(_t(4, 0, 4), _t(30, 30, torch.inf), _t(0, 4, 0), _t(1, 3, 1))
    low, high = interval(_t(1, 1, 1), spread, level=0.9)
    expected = [stats.t.interval(0.9, 30, 1, 2), stats.t.interval(0.9, 3, 1, 2), stats.norm.interval(0.9, 1, 2)]
    assert low.tolist() == pytest.approx([pair[0] for pair in expected], rel=1e-5)
    assert high.tolist() == pytest.approx([pair[1] for pair in expected], rel=1e-5)


def test_wilson_with_a_binomial_standard_error_is_wilsons_interval() -> None:
    accuracy = _t(0.8)
    low, high = wilson(accuracy, _images(0.8 * 0.2 / 50), _t(50))
    expected = stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilson_never_has_zero_width(share: float) -> None:
    low, high = wilson(_t(share), _images(0.0), _t(100))
    expected = stats.binomtest(round(100 * share), 100).proportion_ci(method="wilson")
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high))


def test_wilson_with_one_error_is_not_tighter_than_without() -> None:
    tiny = _t(1e-5)
    low, _ = wilson(1 - tiny, _images(1e-10), _t(100))
    best, _ = wilson(_t(1), _images(0.0), _t(100))
    assert low.item() == best.item() < 0.97


def test_wilson_with_one_right_answer_is_not_tighter_than_without() -> None:
    tiny = _t(1e-5)
    _, high = wilson(tiny, _images(1e-10), _t(100))
    _, worst = wilson(_t(0), _images(0.0), _t(100))
    assert high.item() == worst.item() > 0.03


def test_wilson_never_leaves_the_shares_that_there_are() -> None:
    """Rounding would: by 2e-16 above 1, and below 0."""
    count = torch.arange(1, 400, dtype=torch.float64)
    zero, one = torch.zeros_like(count), torch.ones_like(count)
    spread = _images(*zero.tolist())
    assert wilson(one, spread, count)[1].max().item() == 1
    assert wilson(zero, spread, count)[0].min().item() == 0


def test_a_loss_is_never_below_zero_and_never_certain() -> None:
    low, high = loss_interval(_t(0.0, 0.001, 0.5), _images(0.0, 0.001**2, 0.05**2), _t(60, 60, 60))
    assert low[0] == 0
    assert low[1].item() == pytest.approx(0.001 / stats.norm.ppf(0.975).__rpow__(torch.e))
    assert high[:2].tolist() == pytest.approx([rule_of_three(0.95, _t(60)).item() + loss for loss in (0.0, 0.001)])
    assert high[2].item() == pytest.approx(0.5 * torch.e ** (stats.norm.ppf(0.975) * 0.1))


@pytest.mark.parametrize(("right", "tuples"), [(0.992, 250), (0.991, 56), (0.9999, 250), (0.9997, 56)])
def test_intervals_of_a_loss_cover_near_saturation(right: float, tuples: int) -> None:
    """A wrong tuple loses all of its information, a right one next to nothing; a symmetric interval covers less."""
    draws = torch.rand(2000, tuples, generator=generator(0, str(right)), dtype=torch.float64)
    losses = torch.where(draws < right, 1e-4 * draws, 1.0)
    truth = 1e-4 * right**2 / 2 + (1 - right)
    spread = _images(*(losses.var(dim=1) / tuples).tolist(), freedom=tuples - 1)
    low, high = loss_interval(losses.mean(dim=1), spread, torch.full((2000,), float(tuples)))
    symmetric = interval(losses.mean(dim=1), spread)
    covered = ((low <= truth) & (truth <= high)).double().mean()
    assert covered >= 0.93
    assert covered > ((symmetric[0] <= truth) & (truth <= symmetric[1])).double().mean()


def test_bonferroni_and_intervals_agree() -> None:
    assert bonferroni(_t(0.5, 0.001, 0.02), 5).tolist() == pytest.approx([1.0, 0.005, 0.1])


def test_the_rule_of_three_keeps_all_digits() -> None:
    assert rule_of_three(0.95, _t(60, 7)).tolist() == pytest.approx(
        [-math.log(0.05) / 60, -math.log(0.05) / 7], rel=1e-12
    )
    assert rule_of_three(_t(0.9, 0.99), _t(10)).tolist() == pytest.approx([math.log(10) / 10, math.log(100) / 10])


def test_the_usual_level_is_95_percent() -> None:
    low, high = interval(_t(1), _images(4))
    assert (low.item(), high.item()) == pytest.approx((1 - 3.919928, 1 + 3.919928), rel=1e-5)


def test_every_interval_has_its_own_level() -> None:
    ninety = stats.binomtest(40, 50).proportion_ci(0.9, method="wilson")
    low, high = wilson(_t(0.8), _images(0.8 * 0.2 / 50), _t(50), level=0.9)
    assert (low.item(), high.item()) == pytest.approx((ninety.low, ninety.high))
    low, high = loss_interval(_t(0.5), _images(0.05**2), _t(60), level=0.9)
    factor = math.exp(1.6448536 * 0.1)
    assert (low.item(), high.item()) == pytest.approx((0.5 / factor, 0.5 * factor), rel=1e-6)
    assert loss_interval(_t(0), _images(0), _t(60), level=0.9)[1].item() == pytest.approx(math.log(10) / 60)


def test_a_factor_beyond_all_numbers_stays_a_number() -> None:
    low, high = loss_interval(_t(1e-305), _images(1e-20), _t(1e6))
    assert low.item() == 0
    assert high.item() == pytest.approx(1e-305 * math.exp(700), rel=1e-9)


@pytest.mark.parametrize(("share", "variance", "size"), [(0.5, 0.0, 100), (1.0, 0.01, 100), (0.5, 0.5, 0.5)])
def test_wilson_takes_the_number_of_tuples_where_the_spread_gives_none(
    share: float, variance: float, size: float
) -> None:
    """No spread, no errors; and below one effective tuple the spread is still believed."""
    low, high = wilson(_t(share), _images(variance), _t(100))
    z = 1.959963984540054
    middle, half = share + z**2 / (2 * size), z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    expected = ((middle - half) / (1 + z**2 / size), (middle + half) / (1 + z**2 / size))
    assert (low.item(), high.item()) == pytest.approx(expected, rel=1e-5)
