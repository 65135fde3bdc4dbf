"""Masks of weights: buffers beside the weights that every pass of a network multiplies them with.

The mask of `weight` is the buffer `weight_mask`, that of attention's `in_proj_weight` is `in_proj_weight_mask`: of the
weight's shape and type, 1 where it is kept and 0 where it is removed. A pass uses weight * mask in the weight's place.
So a removed weight has no effect and gets no gradient, whatever an optimiser, a loop or a loaded state makes of the
parameter behind the mask.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

MASK = "weight_mask"  # what the names of all masks end with


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
        """The parameter."""
        return self.owner.get_parameter(self.key)

    @property
    def mask(self) -> Tensor | None:
        """Its mask, if it has one."""
        return self.owner._buffers.get(f"{self.key}_mask")


def masked_weights(network: nn.Module) -> Iterator[MaskableWeight]:
    """Yield every weight with a mask once, in the order of the network."""
    for module in network.modules():
        for name in module._buffers:
            if name.endswith(MASK):
                yield MaskableWeight(module, name.removesuffix("_mask"))


def masked_call(network: nn.Module, inputs: Tensor) -> Tensor:
    """Run a network with weight * mask in the place of every masked weight.

    Args:
        network: the network; it has its own parameters back afterwards, whatever happens.
        inputs: its argument.
    """
    # Dictionaries rather than get_parameter: this runs with every pass.
    places = [(masked.owner._parameters, masked.key, masked.mask) for masked in masked_weights(network)]
    weights = [parameters[key] for parameters, key, _ in places]
    products = torch._foreach_mul(weights, [mask for *_, mask in places])
    try:
        for (parameters, key, _), product in zip(places, products, strict=True):
            parameters[key] = product
        outputs: Tensor = network(inputs)
    finally:
        for (parameters, key, _), weight in zip(places, weights, strict=True):
            parameters[key] = weight
    return outputs


@torch.no_grad()
def enforce(network: nn.Module) -> None:
    """Set removed weights to zero in place, where something has written to the parameters behind the masks."""
    if places := list(masked_weights(network)):
        torch._foreach_mul_([masked.weight for masked in places], [masked.mask for masked in places])
