"""Weight masks: exact top-k, accounting, and keeping pruned weights at zero.

A mask is a buffer `weight_mask` beside `weight`, of its shape and type, 1 where the weight is kept and 0 where it is
removed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import MASK
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import check_ratio

Layer: TypeAlias = nn.Linear | _ConvNd
Scope: TypeAlias = Literal["global", "layer"]


def prunable(backbone: Backbone) -> dict[str, Layer]:
    """Return the layers whose weights may be removed, by name, in the order of the network."""
    modules = backbone.body.named_modules(prefix="body")
    return {name: module for name, module in modules if isinstance(module, (nn.Linear, _ConvNd))}


def masked(network: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, weight and mask of every masked layer of any network."""
    for name, module in network.named_modules():
        if MASK in module._buffers:
            yield name, module.get_parameter("weight"), module.get_buffer(MASK)


def removed(network: nn.Module) -> int:
    """Count the weights that masks remove."""
    return sum(mask.numel() - int(mask.count_nonzero()) for _, _, mask in masked(network))


def count(backbone: Backbone) -> tuple[int, int]:
    """Count the prunable weights and all parameters, masked ones included."""
    weights = sum(layer.weight.numel() for layer in prunable(backbone).values())
    return weights, sum(parameter.numel() for parameter in backbone.parameters())


def mask_ceiling(backbone: Backbone) -> float:
    """Return the largest compression ratio that masks reach: one prunable weight stays."""
    weights, total = count(backbone)
    return total / (total - max(weights - 1, 0))


def weights_to_remove(backbone: Backbone, ratio: float) -> int:
    """Count the weights to remove in all for a compression ratio, rounded to the nearest weight.

    Args:
        backbone: the dense network, or one with masks: these count towards the number.
        ratio: compression ratio over all parameters.

    Raises:
        CompressionError: the ratio is out of range, or the network is compressed further already.
    """
    weights, total = count(backbone)
    check_ratio(
        ratio,
        mask_ceiling(backbone),
        f"{weights} of {total} parameters are prunable (weights of convolutions and linear layers in the body, but not "
        "the classifier, biases or normalisation) and one weight has to stay",
    )
    number, before = total - round(total / ratio), removed(backbone)
    if number < before:
        raise CompressionError(
            f"expected a network compressed at most {ratio:g} times, got masks at {total / (total - before):g} times; "
            "start from the dense network"
        )
    return number


def keep_highest(scores: Shaped[Tensor, "w"], k: int) -> Bool[Tensor, "w"]:
    """Mark exactly the `k` highest scores; of equal ones the first.

    >>> keep_highest(torch.tensor([1.0, 3.0, 1.0, 2.0]), 3)
    tensor([ True,  True, False,  True])
    """
    if k == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    threshold = scores.kthvalue(len(scores) - k + 1).values
    above, equal = scores > threshold, scores == threshold
    return above | (equal & (equal.cumsum(0) <= k - above.sum()))


def normalized_ranks(scores: Shaped[Tensor, "w"]) -> Float[Tensor, "w"]:
    """Rank scores within (0, 1): the lowest of w gets 0.5 / w, the highest 1 - 0.5 / w; equal ones in order.

    Cutting several layers at one normalised rank removes the same share of each, with Webster's rounding. Unlike
    largest remainders it never gives a layer fewer weights when the total grows, so masks nest.

    >>> normalized_ranks(torch.tensor([5.0, 9.0]))
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    size = len(scores)
    ranks = torch.empty(size, dtype=torch.float64, device=scores.device)
    best_first = scores.argsort(descending=True, stable=True)
    ranks[best_first] = (size - 0.5 - torch.arange(size, dtype=torch.float64, device=scores.device)) / size
    return ranks


def check_scores(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that cannot be ordered.

    Raises:
        CompressionError: a score is NaN or infinite; names the layer.
    """
    for name, score in scores.items():
        if bad := score.numel() - int(score.isfinite().sum()):
            raise CompressionError(
                f"expected finite pruning scores, got {bad} NaN or infinite of {score.numel()} in layer {name!r}; "
                "train the network again, with a smaller learning rate if its weights are not finite"
            )


def prune_by_scores(backbone: Backbone, ratio: float, scores: Mapping[str, Tensor], scope: Scope) -> Backbone:
    """Return a copy of a network whose lowest-scored weights are masked.

    Args:
        backbone: the network; weights that it masks already stay masked.
        ratio: compression ratio over all parameters.
        scores: of every prunable layer, in its weight's shape; higher is kept. Equal ones: the first is kept.
        scope: `global` ranks all weights together, `layer` removes the same share of every layer.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    number = weights_to_remove(backbone, ratio)
    check_scores(scores)
    layers = prunable(backbone)
    flat = [scores[name].detach().reshape(-1).double() for name in layers]
    for index, layer in enumerate(layers.values()):
        if MASK in layer._buffers:
            flat[index] = flat[index].masked_fill(layer.get_buffer(MASK).reshape(-1) == 0, -torch.inf)
    keys = torch.cat(flat)
    if scope == "layer":
        ranks = torch.cat([normalized_ranks(score) for score in flat])
        keys = ranks.masked_fill(keys == -torch.inf, -torch.inf)
    keep = torch.split(keep_highest(keys, len(keys) - number), [len(score) for score in flat])
    pruned = copy.deepcopy(backbone)
    apply_masks(pruned, {name: part.view(layers[name].weight.shape) for name, part in zip(layers, keep, strict=True)})
    return pruned


def apply_masks(backbone: Backbone, masks: Mapping[str, Tensor]) -> None:
    """Attach masks to layers, by name, and set the removed weights to zero, in place.

    Args:
        backbone: the network.
        masks: by layer name, in the weight's shape; nonzero where the weight is kept.
    """
    layers = prunable(backbone)
    for name, mask in masks.items():
        # zeros_like keeps the memory format of the weight (channels_last), so that multiplying stays fast
        layers[name].register_buffer(MASK, torch.zeros_like(layers[name].weight).detach().copy_(mask != 0))
    enforce(backbone)


@torch.no_grad()
def enforce(network: nn.Module) -> None:
    """Set removed weights to zero in place; call it after every optimiser step."""
    for _, weight, mask in masked(network):
        weight.mul_(mask)


@torch.no_grad()
def mask_gradients(network: nn.Module) -> None:
    """Set the gradients of removed weights to zero in place; call it before every optimiser step."""
    for _, weight, mask in masked(network):
        if weight.grad is not None:
            weight.grad.mul_(mask)


def bake(network: nn.Module) -> None:
    """Set removed weights to zero for good and delete the masks, in place: plain modules remain."""
    enforce(network)
    for module in network.modules():
        module._buffers.pop(MASK, None)


def collapsed_layers(network: nn.Module) -> tuple[str, ...]:
    """Name the layers whose mask leaves no weight."""
    return tuple(name for name, _, mask in masked(network) if not mask.any())
