"""Unit pruning: the units and channels with the smallest incoming weights are physically removed.

The score of a unit is the L2 norm of its incoming weights: a column of W for a linear layer ReLU(x W), the filter of a
convolution's channel. Channels that several layers write, such as those of a residual stream, have the norm of all
these weights together.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import groups, prune_channels_by_scores, structured_ceiling
from sharedlabel.pruners._masks import Scope, prunable

STRUCTURED = True
NESTED = True
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """Options of unit pruning.

    Args:
        scope: `layer` removes the same share of every layer's units, `global` compares the norms of all units.
    """

    scope: Scope = "layer"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one unit stays in every layer.

    Raises:
        CompressionError: channels of this network cannot be removed.
    """
    del config
    return structured_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Remove the units of smallest norm until the parameter count is closest to the dense one / ratio.

    Args:
        backbone: the network; its parameters are the dense count.
        ratio: compression ratio over all parameters.
        config: options.
        context: not used.

    Raises:
        CompressionError: channels of this network cannot be removed, the ratio cannot be reached, or weights are not
            finite.
    """
    del context
    layers = prunable(backbone)
    scores = {
        name: torch.stack([_norms(layers[writer].weight.detach()) for writer in group.writers]).norm(dim=0)
        for name, group in groups(backbone).items()
    }
    return prune_channels_by_scores(backbone, ratio, scores, config.scope)


def _norms(weight: Float[Tensor, "channels ..."]) -> Float64[Tensor, "channels"]:
    """Return the L2 norm of each output channel's weights."""
    norms: Tensor = torch.linalg.vector_norm(weight.flatten(1), dim=1, dtype=torch.float64)
    return norms
