"""Which modules a pass of a network calls, found on a copy without values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from sharedlabel.backbones._base import Backbone


def on_meta(backbone: Backbone) -> Backbone:
    """Copy a network without its values, in evaluation mode."""
    memo: dict[int, Any] = {id(p): nn.Parameter(torch.empty_like(p, device="meta")) for p in backbone.parameters()}
    memo |= {id(buffer): torch.empty_like(buffer, device="meta") for buffer in backbone.buffers()}
    return copy.deepcopy(backbone, memo).float().eval()


def calls(network: Backbone) -> dict[nn.Module, tuple[Any, Any]]:
    """Run a network from `on_meta` on an image and return what its modules were given first, and what they returned.

    Modules that are left out, or whose weights others read without calling them, are not in it.
    """
    called: dict[nn.Module, tuple[Any, Any]] = {}

    def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        called[module] = (*given, None)[0], output

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(network.blank(device="meta"))
    for hook in hooks:
        hook.remove()
    return called
