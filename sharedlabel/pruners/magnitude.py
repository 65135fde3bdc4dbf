"""Magnitude pruning: the smallest weights go.

The paper sets a threshold for each layer by hand, in standard deviations of its weights, prunes and retrains
repeatedly, and prunes the classifier too. Here one threshold meets the ratio exactly, at once unless the schedule is
iterative.

Reference: Han, Pool, Tran & Dally, "Learning both Weights and Connections for Efficient Neural Networks" (2015).
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import Scope, magnitudes, mask_ceiling, prune_by_scores

STRUCTURED = False
NESTED = True
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """Options of magnitude pruning.

    Args:
        scope: `global` compares all prunable weights, `layer` removes the same share of every layer.
    """

    scope: Scope = "global"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights of smallest absolute value.

    Args:
        backbone: the network, usually trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: not used.

    Raises:
        CompressionError: the ratio cannot be reached, or weights are not finite.
    """
    del context
    return prune_by_scores(backbone, ratio, magnitudes(backbone), config.scope)
