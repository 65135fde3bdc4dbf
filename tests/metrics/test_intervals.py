from __future__ import annotations

import pytest
import torch
from scipy import stats

from sharedlabel.metrics.intervals import holm, interval, two_sided, wilson


def _t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_interval_is_students() -> None:
    low, high = interval(_t(1, 1), _t(2, 2), _t(3, torch.inf), level=0.9)
    expected = [stats.t.interval(0.9, 3, 1, 2), stats.norm.interval(0.9, 1, 2)]
    assert low.tolist() == pytest.approx([pair[0] for pair in expected])
    assert high.tolist() == pytest.approx([pair[1] for pair in expected])


def test_wilson_with_a_binomial_standard_error_is_wilsons_interval() -> None:
    accuracy = _t(0.8)
    se = (accuracy * (1 - accuracy) / 50).sqrt()
    low, high = wilson(accuracy, se, _t(torch.inf), _t(50))
    expected = stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_wilson_never_has_zero_width(share: float) -> None:
    low, high = wilson(_t(share), _t(0), _t(torch.inf), _t(100))
    expected = stats.binomtest(round(100 * share), 100).proportion_ci(method="wilson")
    assert (low.item(), high.item()) == pytest.approx((expected.low, expected.high))


def test_wilson_with_one_error_is_not_tighter_than_without() -> None:
    tiny = _t(1e-5)
    low, _ = wilson(1 - tiny, tiny, _t(torch.inf), _t(100))
    best, _ = wilson(_t(1), _t(0), _t(torch.inf), _t(100))
    assert low.item() == best.item() < 0.97


def test_wilson_with_one_right_answer_is_not_tighter_than_without() -> None:
    tiny = _t(1e-5)
    _, high = wilson(tiny, tiny, _t(torch.inf), _t(100))
    _, worst = wilson(_t(0), _t(0), _t(torch.inf), _t(100))
    assert high.item() == worst.item() > 0.03


def test_wilson_never_leaves_the_shares_that_there_are() -> None:
    """Rounding would: by 2e-16 above 1, and below 0."""
    count = torch.arange(1, 400, dtype=torch.float64)
    zero, one = torch.zeros_like(count), torch.ones_like(count)
    assert wilson(one, zero, one * torch.inf, count)[1].max().item() == 1
    assert wilson(zero, zero, one * torch.inf, count)[0].min().item() == 0


def test_p_values() -> None:
    found = two_sided(_t(1.0, -2.0, 0.0, 0.3), _t(0.5, 1.0, 0.0, 0.0), _t(torch.inf, 4, 4, 4))
    expected = [2 * stats.norm.sf(2), 2 * stats.t.sf(2, 4), 1, 0]
    assert found.tolist() == pytest.approx(expected)


def test_holm_controls_by_hand() -> None:
    found = holm(_t(0.5, 0.001, 0.02, 0.02, 0.9))
    assert found.tolist() == pytest.approx([1.0, 0.005, 0.08, 0.08, 1.0])
