"""Filter pruning by L1 norm: the filters with the smallest sum of absolute weights are physically removed.

With a filter go its entries in batch normalisation and the slices of the next layers that read it. Where several layers
write the same channels (residual branches), the paper lets the shortcut decide; here their sums are added, because
without projections no layer of the stream is the shortcut. The paper sets each layer's share by hand, from how much
accuracy it costs, and skips the sensitive ones; here all layers lose the same share, or the sums of all are compared.

Reference: Li, Kadav, Durdanovic, Samet & Graf, "Pruning Filters for Efficient ConvNets" (2017).
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
    """Options of filter pruning.

    Args:
        scope: `layer` removes the same share of every layer's filters, `global` compares the sums of all filters.
    """

    scope: Scope = "layer"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one filter stays in every layer.

    Raises:
        CompressionError: channels of this network cannot be removed.
    """
    del config
    return structured_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Remove the filters of smallest sum until the parameter count is closest to the dense one / ratio.

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
    return prune_channels_by_scores(backbone, ratio, writer_norms(backbone, 1), config.scope)
