"""An estimate never lies outside its interval, not even by rounding."""

from __future__ import annotations

import torch

from sharedlabel.metrics.intervals import _wilson
from sharedlabel.rng import generator


def test_wilsons_interval_holds_the_share() -> None:
    stream = generator(0, "tests")
    count = torch.randint(1, 5000, (20_000,), generator=stream).double()
    share = (torch.rand(20_000, generator=stream).double() * (count + 1)).floor().minimum(count) / count
    share[:2_000], share[2_000:4_000] = 0.0, 1.0
    z = 1 + 12 * torch.rand(20_000, generator=stream).double()
    low, high = _wilson(share, count, z)
    assert torch.all((low >= 0) & (low <= share) & (share <= high) & (high <= 1))
