"""Masks of weights: buffers beside the weights that every pass of a network multiplies them with.

The mask of `weight` is the buffer `weight_mask`, that of attention's `in_proj_weight` is `in_proj_weight_mask`: of the
weight's shape and type, 1 where it is kept and 0 where it is removed. A pass uses weight * mask in the weight's place.
So a removed weight has no effect and gets no gradient, whatever finite number an optimiser, a loop or a loaded state
writes to the parameter behind the mask. (Infinity times 0 is NaN in a pass; states and baked weights have 0 there, too.
`torch.where` would keep it out of passes, for at least seven times the time of a product.)

A `Backbone` puts all products in place at once, at the beginning of its pass (`masked_call`); in any other module each
layer sees to its own (`_holding.py`).
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

MASK = "weight_mask"  # what the names of all masks end with
_ONE_AT_A_TIME = threading.RLock()  # of all networks, since a network with a lock of its own could not be pickled


@dataclass(frozen=True, eq=False)
class MaskableWeight:
    """A weight and its place in a network.

    Attributes:
        owner: the module that it is a parameter of.
        key: its name there.
    """

    owner: nn.Module
    key: str

    @property
    def weight(self) -> nn.Parameter:
        """The parameter itself, also where reading `owner.weight` gives weight * mask."""
        weight = self.owner._parameters[self.key]
        assert weight is not None
        return weight

    @property
    def mask(self) -> Tensor | None:
        """Its mask, if it has one."""
        return self.owner._buffers.get(f"{self.key}_mask")


def count_parameters(network: nn.Module) -> int:
    """Count all parameters of a network, masked ones included; one that several layers share counts once."""
    return sum(parameter.numel() for parameter in network.parameters())


def masked_weights(network: nn.Module) -> Iterator[MaskableWeight]:
    """Yield every weight with a mask once, in the order of the network."""
    return (MaskableWeight(owner, key) for owner, key in _places(network))


def masked_call(network: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network with weight * mask in the place of every masked weight; threads take turns.

    Args:
        network: the network; it has its own parameters back afterwards, whatever happens.
        inputs: its argument.
    """
    # The places of parameters are the network's own: a pass of another thread would take products for parameters.
    with contextlib.nullcontext() if torch.compiler.is_compiling() else _ONE_AT_A_TIME:
        slots = _slots(network)
        weights = [parameters[key] for parameters, key, _ in slots]
        products = torch._foreach_mul(weights, [mask for *_, mask in slots])
        try:
            for (parameters, key, _), product in zip(slots, products, strict=True):
                parameters[key] = product
            outputs: Tensor = network(inputs)
        finally:
            for (parameters, key, _), weight in zip(slots, weights, strict=True):
                parameters[key] = weight
    return outputs


@torch.no_grad()
def enforce(network: nn.Module) -> None:
    """Set removed weights to zero in place, where something has written to the parameters behind the masks."""
    for parameters, key, mask in _slots(network):
        parameters[key].masked_fill_(mask == 0, 0)  # not a product, which keeps NaN


def _slots(network: nn.Module) -> list[tuple[dict[str, Any], str, Tensor]]:
    """Return where a network keeps each masked weight, and the mask."""
    places = ((owner, key, owner._buffers[f"{key}_mask"]) for owner, key in _places(network))
    return [(owner._parameters, key, mask) for owner, key, mask in places if mask is not None]


def _places(network: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Yield the owner and the name of every weight with a mask; every pass asks, so it takes half of `modules()`."""
    seen: set[nn.Module] = set()
    left: list[nn.Module | None] = [network]
    while left:
        module = left.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        for name in module._buffers:
            if name.endswith(MASK):
                yield module, name.removesuffix("_mask")
        left.extend(reversed(module._modules.values()))


def before_state(network: nn.Module, prefix: str, keep_vars: bool) -> None:
    """Set removed weights to zero before a state is read: a hook of modules that can be pickled."""
    del prefix, keep_vars
    enforce(network)


def after_loading(network: nn.Module, incompatible_keys: Any) -> None:
    """Set removed weights to zero after a state was loaded: a hook of modules."""
    del incompatible_keys
    enforce(network)
