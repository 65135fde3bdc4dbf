"""Prefixes of a tuple, each a set of its own, for functions of sets that have no causal form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def over_prefixes(
    function: Callable[[Float[Tensor, "s n f"], Bool[Tensor, "s n"]], Float[Tensor, "s g"]],
    features: Float[Tensor, "t n f"],
    counts: Int64[Tensor, "k 1"],
) -> Float[Tensor, "t k g"]:
    """Apply a function of sets to several prefixes of every tuple, all at once.

    Costs k times what one set of n costs, in time and memory.

    Args:
        function: takes `s = t k` sets, and which of their instances are present; absent ones must not matter.
        features: of the instances.
        counts: instances in each prefix.
    """
    tuples, size, width = features.shape
    present = torch.arange(size, device=features.device) < counts  # [prefix, instance]
    prefixes = counts.shape[0]
    sets = features[:, None].expand(-1, prefixes, -1, -1).reshape(tuples * prefixes, size, width)
    outputs = function(sets, present.expand(tuples, -1, -1).reshape(tuples * prefixes, size))
    return outputs.reshape(tuples, prefixes, outputs.shape[-1])
