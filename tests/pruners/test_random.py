from __future__ import annotations

from typing import Literal

import pytest
import torch

from sharedlabel import rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import _masks, _methods, random
from sharedlabel.pruners._base import Context


def network() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config(widths=(10, 6)), (1, 4, 4), 3)


def kept(seed: int, ratio: float, scope: Literal["global", "layer"] = "global") -> torch.Tensor:
    pruned = _methods.prune(random, network(), ratio, random.Config(scope), Context(rng.generator(seed)))
    return torch.cat([mask.flatten() for _, _, mask in _masks.masked(pruned)])


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_weight_is_equally_likely_to_stay(scope: Literal["global", "layer"]) -> None:
    draws = torch.stack([kept(seed, 2.0, scope) for seed in range(150)])
    share = 1 - (257 - 128) / 220
    assert (draws.sum(1) == 91).all()
    # Five standard errors of a mean of 150 draws.
    assert (draws.mean(0) - share).abs().max() < 5 * (share * (1 - share) / 150) ** 0.5


def test_the_global_generator_is_not_used() -> None:
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    first = kept(0, 2.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(kept(0, 2.0), first)
    assert not torch.equal(kept(1, 2.0), first)


def test_layer_scope_keeps_the_same_share_everywhere() -> None:
    first, second = torch.split(kept(0, 4.0, "layer"), [160, 60])
    assert abs(first.mean() - second.mean()) <= 0.5 / 160 + 0.5 / 60
