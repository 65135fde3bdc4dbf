"""Unit pruning physically removes the units and channels whose incoming weights are smallest.

    pruners: [{name: unit, scope: global}]

The score of a unit is the L2 norm of its incoming weights: a column of W for a linear layer ReLU(x W), the filter of a
convolution's channel. Channels that several layers write, such as those of a residual stream, have the norm of all
these weights together.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float64
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import writer_norms
from sharedlabel.pruners._scores import Scope

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


def scores(backbone: Backbone, config: Config, context: Context) -> dict[str, Float64[Tensor, "channels"]]:
    """Return the L2 norm of the weights that write each unit's output, by group; higher is kept.

    Args:
        backbone: the network.
        config: not used.
        context: not used.

    Raises:
        CompressionError: channels of this network cannot be removed.
    """
    del config, context
    return writer_norms(backbone, 2)
