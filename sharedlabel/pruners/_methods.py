"""What every pruner can be asked, however it is written: `ceiling` and `prune`.

    method = plugins.load("pruners", "snip")
    if ratio <= ceiling(method, backbone, config):
        pruned = prune(method, backbone, ratio, config, context)

A pruner that scores single weights or channels defines `scores` and nothing else; what follows from scores is here. A
pruner that works in another way has a `prune`, and a `ceiling` where it is not that of its kind.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import prune_channels_by_scores, structured_ceiling
from sharedlabel.pruners._masks import (
    Scope,
    keep_by_scores,
    kept,
    mask_ceiling,
    masked_copy,
    removed,
    weights_to_remove,
)


def ceiling(method: ModuleType, backbone: Backbone, config: Any) -> float:
    """Return the largest compression ratio that a pruner reaches on a network.

    Args:
        method: the pruner.
        backbone: the network; its parameters, masked ones included, are the dense count.
        config: the pruner's options.

    Raises:
        CompressionError: the pruner does not take this network.
    """
    if hasattr(method, "ceiling"):
        return float(method.ceiling(backbone, config))
    return structured_ceiling(backbone) if method.STRUCTURED else mask_ceiling(backbone)


def prune(method: ModuleType, backbone: Backbone, ratio: float, config: Any, context: Context) -> Backbone:
    """Return a pruned copy of a network.

    Scores are computed only where there is something to remove.

    Args:
        method: the pruner.
        backbone: the network; weights that it masks already stay masked and count as removed.
        ratio: compression ratio over all parameters.
        config: the pruner's options.
        context: what the pruner may draw on.

    Raises:
        CompressionError: the ratio cannot be reached, something that the pruner needs is missing, the network is none
            that it takes, or scores are not finite.
    """
    if hasattr(method, "prune"):
        pruned: Backbone = method.prune(backbone, ratio, config, context)
        return pruned
    if method.STRUCTURED:
        return prune_channels_by_scores(backbone, ratio, method.scores(backbone, config, context), _scope(config))
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return masked_copy(backbone, kept(backbone))
    # Scores need as much memory as the pruned network: they are gone when that is made.
    keep = keep_by_scores(backbone, ratio, method.scores(backbone, config, context), _scope(config))
    return masked_copy(backbone, keep)


def _scope(config: Any) -> Scope:
    """Return which scores are compared: those of all layers together, unless the pruner has an option for it."""
    scope: Scope = getattr(config, "scope", "global")
    return scope
