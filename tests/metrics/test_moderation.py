from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import optimize, special

from sharedlabel.metrics.moderation import moderate
from sharedlabel.rng import generator


def _variances(pairs: int, places: int, freedom: int, spread: float, name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """True variances, log-normal around pair and network effects, and what `freedom` degrees of freedom show."""
    stream = generator(0, "moderation", name)
    effects = torch.randn(pairs, 1, 1, generator=stream) + torch.randn(1, places, 1, generator=stream)
    own = spread * torch.randn(pairs, places, 1, generator=stream)
    true = (effects + own).double().exp()
    draws = torch.randn(pairs, places, 1, freedom, generator=stream, dtype=torch.float64)
    return true, true * draws.square().mean(dim=-1)


def test_moderated_variances_are_closer_to_the_true_ones() -> None:
    true, seen = _variances(30, 12, 2, 0.3, "closer")
    moderated, freedom = moderate(seen, 2)
    error = (moderated / true).log().square().mean()
    assert error < 0.5 * (seen / true).log().square().mean()
    assert freedom.tolist() == [5.0]  # the cap and the two of each


def test_variances_that_scatter_of_themselves_are_left_alone() -> None:
    _, seen = _variances(30, 12, 4, 2.0, "apart")
    moderated, freedom = moderate(seen, 4)
    assert 4 < float(freedom) < 5.5
    assert (moderated / seen).log().abs().median() < 0.4


def test_the_trend_is_that_of_pairs_and_networks() -> None:
    """With hardly any chance in them, moderated variances are the given ones wherever a two-way trend holds."""
    pairs, places = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, -1.0, 0.5])
    exact = (pairs[:, None] + places).exp().double()[..., None]
    moderated, _ = moderate(exact, 200)
    torch.testing.assert_close(moderated, exact, rtol=0.02, atol=0)


def test_one_network_borrows_from_all_pairs() -> None:
    seen = torch.tensor([1.0, 1.2, 0.9, 1e-9], dtype=torch.float64).view(4, 1, 1)
    moderated, freedom = moderate(seen, 2)
    assert moderated[3, 0, 0] > 1e-4
    assert 2 < float(freedom) <= 5


@pytest.mark.parametrize("seen", [torch.zeros(3, 4, 1), torch.full((1, 4, 1), 0.5)])
def test_nothing_to_borrow(seen: torch.Tensor) -> None:
    moderated, freedom = moderate(seen.double(), 3)
    assert torch.equal(moderated, seen.double())
    assert freedom.tolist() == [3.0]


def test_a_variance_of_zero_is_drawn_up() -> None:
    seen = torch.ones(4, 5, 1, dtype=torch.float64)
    seen[2, 3] = 0
    moderated, _ = moderate(seen, 4)
    assert moderated[2, 3, 0] > 0
    assert moderated.isfinite().all()


SEEN = torch.tensor([[1.0, 2.0, 0.5], [9.0, 1.0, 4.0], [0.02, 0.9, 0.7], [0.3, 3.0, 2.0]], dtype=torch.float64)


def _by_hand(seen: np.ndarray, freedom: int, cap: float, two_ways: bool) -> tuple[np.ndarray, float]:
    """The formulas of the module's docstring, with the degrees of freedom of the prior from a search in between."""
    logs = np.log(seen) - special.digamma(freedom / 2) + np.log(freedom / 2)
    mean, left = logs.mean() + 0 * logs, logs.size - 1
    if two_ways:
        mean = logs.mean(axis=0) + logs.mean(axis=1)[:, None] - logs.mean()
        left = (logs.shape[0] - 1) * (logs.shape[1] - 1)
    scatter = ((logs - mean) ** 2).sum() / left - special.polygamma(1, freedom / 2)
    own = optimize.brentq(lambda d: special.polygamma(1, d / 2) - scatter, 1e-3, 1e6) if scatter > 0 else np.inf
    prior = min(cap, own)
    centre = np.exp(mean + special.digamma(prior / 2) - np.log(prior / 2))
    return (prior * centre + freedom * seen) / (prior + freedom), prior + freedom


@pytest.mark.parametrize(("freedom", "cap", "capped"), [(4, 3.0, False), (4, 1.5, True), (1, 3.0, True)])
def test_moderated_variances_are_those_of_the_formula(freedom: int, cap: float, capped: bool) -> None:
    moderated, of_all = moderate(SEEN[..., None], freedom, cap)
    expected, expected_freedom = _by_hand(SEEN.numpy(), freedom, cap, two_ways=True)
    assert moderated[..., 0].flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-9)
    assert of_all.tolist() == pytest.approx([expected_freedom], rel=1e-9)
    assert (expected_freedom == cap + freedom) == capped


@pytest.mark.parametrize(
    ("rows", "columns", "two_ways"), [(4, 1, False), (2, 1, False), (2, 2, False), (3, 2, True), (2, 3, True)]
)
def test_the_trend_is_a_mean_where_too_little_is_left_for_two_ways(rows: int, columns: int, two_ways: bool) -> None:
    part = SEEN[:rows, :columns]
    moderated, freedom = moderate(part[..., None], 4)
    expected, expected_freedom = _by_hand(part.numpy(), 4, 3.0, two_ways)
    assert moderated[..., 0].flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-9)
    assert freedom.tolist() == pytest.approx([expected_freedom], rel=1e-9)


def test_a_small_scatter_is_a_strong_prior() -> None:
    close = SEEN**0.6
    moderated, freedom = moderate(close[..., None], 4, cap=1e3)
    expected, expected_freedom = _by_hand(close.numpy(), 4, 1e3, two_ways=True)
    assert 10 < expected_freedom < 1000
    assert moderated[..., 0].flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-7)
    assert freedom.tolist() == pytest.approx([expected_freedom], rel=1e-7)


@pytest.mark.parametrize("places", [1, 3])
def test_each_column_is_moderated_by_itself(places: int) -> None:
    columns = [column[:, :places] for column in (SEEN, 7 * SEEN.sqrt(), 0 * SEEN)]
    both, freedom = moderate(torch.stack(columns, dim=2), 4)
    for at, column in enumerate(columns):
        alone, own = moderate(column[..., None], 4)
        torch.testing.assert_close(both[..., at], alone[..., 0], rtol=1e-12, atol=0)
        assert float(freedom[at]) == float(own)


def test_a_variance_of_zero_counts_as_a_hundred_thousandth_of_the_median() -> None:
    seen = 16 * SEEN
    seen[2, 0] = 0
    floored = seen.clone()
    floored[2, 0] = 1e-5 * float(seen.median())
    moderated, freedom = moderate(seen[..., None], 4)
    expected, expected_freedom = _by_hand(floored.numpy(), 4, 3.0, two_ways=True)
    expected[2, 0] -= 4 * float(floored[2, 0]) / expected_freedom
    assert moderated[..., 0].flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-9)
    assert float(freedom) == pytest.approx(expected_freedom, rel=1e-9)
