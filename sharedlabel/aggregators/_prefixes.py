"""Every prefix of a tuple as a set of its own, for functions of sets that have no causal form."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def over_prefixes(
    function: Callable[[Float[Tensor, "s n f"], Bool[Tensor, "s n"]], Float[Tensor, "s g"]],
    features: Float[Tensor, "t n f"],
) -> Float[Tensor, "t n g"]:
    """Apply a function of sets to every prefix of every tuple, all at once.

    Costs n times what one set of n costs, in time and memory.

    Args:
        function: takes `s = t n` sets, and which of their instances are present; absent ones must not matter.
        features: of the instances.
    """
    tuples, size, width = features.shape
    present = torch.ones(size, size, dtype=torch.bool, device=features.device).tril()  # [prefix, instance]
    sets = features[:, None].expand(-1, size, -1, -1).reshape(tuples * size, size, width)
    found = function(sets, present.expand(tuples, -1, -1).reshape(tuples * size, size))
    return found.reshape(tuples, size, found.shape[-1])
