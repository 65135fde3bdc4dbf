from __future__ import annotations

import pytest
import torch

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
    found, freedom = moderate(seen, 2)
    error = (found / true).log().square().mean()
    assert error < 0.5 * (seen / true).log().square().mean()
    assert freedom.tolist() == [5.0]  # the cap and the two of each


def test_variances_that_scatter_of_themselves_are_left_alone() -> None:
    _, seen = _variances(30, 12, 4, 2.0, "apart")
    found, freedom = moderate(seen, 4)
    assert 4 < float(freedom) < 5.5
    assert (found / seen).log().abs().median() < 0.4


def test_the_trend_is_that_of_pairs_and_networks() -> None:
    """With hardly any chance in them, moderated variances are the given ones wherever a two-way trend holds."""
    pairs, places = torch.tensor([0.0, 1.0, 3.0]), torch.tensor([0.0, 2.0, -1.0, 0.5])
    exact = (pairs[:, None] + places).exp().double()[..., None]
    found, _ = moderate(exact, 200)
    torch.testing.assert_close(found, exact, rtol=0.02, atol=0)


def test_one_network_borrows_from_all_pairs() -> None:
    seen = torch.tensor([1.0, 1.2, 0.9, 1e-9], dtype=torch.float64).view(4, 1, 1)
    found, freedom = moderate(seen, 2)
    assert found[3, 0, 0] > 1e-4
    assert 2 < float(freedom) <= 5


@pytest.mark.parametrize("seen", [torch.zeros(3, 4, 1), torch.full((1, 4, 1), 0.5)])
def test_nothing_to_borrow(seen: torch.Tensor) -> None:
    found, freedom = moderate(seen.double(), 3)
    assert torch.equal(found, seen.double())
    assert freedom.tolist() == [3.0]


def test_a_variance_of_zero_is_drawn_up() -> None:
    seen = torch.ones(4, 5, 1, dtype=torch.float64)
    seen[2, 3] = 0
    found, _ = moderate(seen, 4)
    assert found[2, 3, 0] > 0
    assert found.isfinite().all()
