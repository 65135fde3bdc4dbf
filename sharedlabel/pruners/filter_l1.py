"""Filter pruning physically removes the filters whose absolute weights have the smallest sum.

    pruners: [{name: filter_l1, scope: global}]

With a filter go its entries in batch normalisation and the slices of the next layers that read it. Where several layers
write the same channels (residual branches), the paper lets the shortcut decide; here their sums are added, because
without projections no layer of the stream is the shortcut. The paper sets each layer's share by hand, from how much
accuracy it costs, and skips the sensitive ones; here all layers lose the same share, or the sums of all are compared.

Reference: Li, Kadav, Durdanovic, Samet & Graf, "Pruning Filters for Efficient ConvNets" (2017).
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
    """Options of filter pruning.

    Args:
        scope: `layer` removes the same share of every layer's filters, `global` compares the sums of all filters.
    """

    scope: Scope = "layer"


def scores(backbone: Backbone, config: Config, context: Context) -> dict[str, Float64[Tensor, "channels"]]:
    """Return the L1 norm of the weights that write each filter's output, by group; higher is kept.

    Args:
        backbone: the network.
        config: not used.
        context: not used.

    Raises:
        CompressionError: channels of this network cannot be removed.
    """
    del config, context
    return writer_norms(backbone, 1)
