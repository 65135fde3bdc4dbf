"""Networks that are trained through torch.compile."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import nn

Compiled: TypeAlias = bool | Literal["reduce-overhead", "max-autotune"]
_latest: list[Any] = []  # shapes of the network that was compiled last


def compiled(network: nn.Module, how: Compiled) -> nn.Module:
    """Return a network that is compiled when it is first called, or as it is.

    Networks of the same shapes one after the other, such as one pruned by masks to several ratios, are compiled once.

    Args:
        network: to train.
        how: whether, or in which mode of torch.compile.
    """
    if how is False:
        return network
    shapes = [(name, tensor.shape) for name, tensor in (*network.named_parameters(), *network.named_buffers())]
    if shapes != _latest:
        torch.compiler.reset()  # else later networks hit the limit on recompilations and would silently run eagerly
        _latest[:] = shapes
    made: Any = torch.compile(network, mode=None if how is True else how)
    return made  # type: ignore[no-any-return]
