"""The pruner contract.

A pruner is a module with a frozen `Config`, three constants and two functions:

- `STRUCTURED`: whether it removes parameters physically instead of masking them;
- `NESTED`: whether the weights kept at a ratio are among those kept at any smaller ratio, everything else equal;
- `NEEDS`: what it reads of the `Context` beside the generator, a subset of data, labels, gradients, trainer;
- `ceiling(backbone, config)`: the largest compression ratio that it can reach on this network;
- `prune(backbone, ratio, config, context)`: a new, pruned network; the one passed in is left as it was.

The compression ratio is counted over all parameters: those of the dense network / those that remain. Masked weights
count as removed. Prunable are the weights of convolutions and linear layers in the body: never the classifier, biases
or normalisation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.errors import CompressionError


@dataclass(frozen=True)
class Context:
    """What a pruner may draw on.

    Attributes:
        generator: the only source of randomness, on the CPU.
        images: `[b C H W]`, or None where the pruner does not ask for data.
        labels: `[b]`, class indices of `images`, or None where the pruner does not ask for labels.
    """

    generator: torch.Generator
    images: Tensor | None = None
    labels: Tensor | None = None


def check_ratio(ratio: float, ceiling: float, reason: str) -> None:
    """Refuse a compression ratio that cannot be reached.

    Args:
        ratio: requested compression ratio.
        ceiling: the largest one.
        reason: what sets the ceiling, for the message.

    Raises:
        CompressionError: the ratio is below 1, NaN or above the ceiling.
    """
    if not 1 <= ratio <= ceiling:
        raise CompressionError(
            f"expected a compression ratio from 1 to {ceiling:.6g}, got {ratio:g}: {reason}; "
            "choose a ratio in this range, another pruner or a larger network"
        )
