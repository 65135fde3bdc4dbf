"""Random pruning removes weights by lot: the floor that every score has to beat.

pruners: [{name: random, scope: layer}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import prunable
from sharedlabel.pruners._scores import Scope, check_weights

STRUCTURED = False
NESTED = True
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """Options of random pruning.

    Args:
        scope: `global` draws from all prunable weights, `layer` removes the same share of every layer.
    """

    scope: Scope = "global"


def scores(backbone: Backbone, config: Config, context: Context) -> dict[str, Tensor]:
    """Draw one number from [0, 1) for every prunable weight, the same ones at every ratio.

    Args:
        backbone: the network.
        config: not used.
        context: its generator draws.

    Raises:
        CompressionError: weights are not finite.
    """
    del config
    check_weights(backbone)
    return {
        name: torch.rand(layer.weight.shape, dtype=torch.float64, generator=context.generator).to(layer.weight.device)
        for name, layer in prunable(backbone).items()
    }
