"""Random pruning: the floor that every score has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import (
    Scope,
    check_weights,
    keep_by_scores,
    mask_ceiling,
    masked_copy,
    prunable,
)

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


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask weights drawn from the generator, the same first ones at every ratio.

    Args:
        backbone: the network.
        ratio: compression ratio over all parameters.
        config: options.
        context: its generator draws one score per prunable weight.

    Raises:
        CompressionError: the ratio cannot be reached, or weights are not finite.
    """
    check_weights(backbone)
    scores = {
        name: torch.rand(layer.weight.shape, dtype=torch.float64, generator=context.generator).to(layer.weight.device)
        for name, layer in prunable(backbone).items()
    }
    keep = keep_by_scores(backbone, ratio, scores, config.scope)
    del scores  # they need as much memory as the pruned network
    return masked_copy(backbone, keep)
