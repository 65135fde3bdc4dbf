"""Unit pruning: the units and channels with the smallest incoming weights are physically removed.

The score of a unit is the L2 norm of its incoming weights: a column of W for a linear layer ReLU(x W), the filter of a
convolution's channel. Channels that several layers write, such as those of a residual stream, have the norm of all
these weights together.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import prune_channels_by_scores, structured_ceiling, writer_norms
from sharedlabel.pruners._masks import Scope

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
    return prune_channels_by_scores(backbone, ratio, writer_norms(backbone, 2), config.scope)
