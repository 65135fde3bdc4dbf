"""A state without the weights that masks remove: what a compressed network needs on disk."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from sharedlabel.backbones._masking import MASK

_SHAPE = "weight_shape"


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace every masked weight by the values left; its mask becomes one bit per weight.

    Args:
        tensors: what `_restore.state` returned.

    Returns:
        `weight` `[left]`, `weight_mask` `uint8 [ceil(w / 8)]` and `weight_shape` for every masked layer; all other
        tensors as they are.
    """
    packed = dict(tensors)
    for name in [name for name in tensors if name.endswith(MASK)]:
        prefix = name.removesuffix(MASK)
        weight, mask = tensors[f"{prefix}weight"], tensors[name].bool()
        packed[f"{prefix}weight"] = weight[mask]
        packed[name] = _to_bits(mask.flatten())
        packed[prefix + _SHAPE] = torch.tensor(weight.shape)
    return packed


def _to_bits(mask: Bool[Tensor, "w"]) -> UInt8[Tensor, "bytes"]:
    padded = torch.nn.functional.pad(mask.to(torch.uint8), (0, -len(mask) % 8)).view(-1, 8)
    return (padded << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)
