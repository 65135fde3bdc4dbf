"""Weight masks: exact top-k, accounting, and keeping pruned weights at zero.

A mask is a buffer `weight_mask` beside `weight`, of its shape and type, 1 where the weight is kept and 0 where it is
removed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import MASK
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import check_ratio
from sharedlabel.pruners._select import keep_highest_of, layer_quotas

Layer: TypeAlias = nn.Linear | _ConvNd
Scope: TypeAlias = Literal["global", "layer"]


def prunable(backbone: Backbone) -> dict[str, Layer]:
    """Return the layers whose weights may be removed, by name, in the order of the network.

    Attention keeps all its weights, those of its output projection too: it reads them without calling that layer.

    Raises:
        CompressionError: a layer shares its weight with another one, or computes it from other parameters.
    """
    modules = dict(backbone.body.named_modules(prefix="body"))
    attention = tuple(f"{name}." for name, module in modules.items() if isinstance(module, nn.MultiheadAttention))
    found = {
        name: module
        for name, module in modules.items()
        if isinstance(module, (nn.Linear, _ConvNd)) and not name.startswith(attention)
    }
    _check_plain({**found, "classifier": backbone.classifier})
    _check_not_shared(backbone, found)
    return found


def _check_plain(layers: Mapping[str, nn.Module]) -> None:
    """Refuse weights that are computed from other parameters, as by `weight_norm`: there is nothing to set to zero."""
    for name, layer in layers.items():
        if "weight" not in layer._parameters:
            others = ", ".join(key for key, _ in layer.named_parameters() if key != "bias")
            raise CompressionError(
                f"expected layers whose weight is a parameter, got {name!r}, which computes its weight from {others}; "
                "undo that first (torch.nn.utils.parametrize.remove_parametrizations; what was added by the older "
                "torch.nn.utils.weight_norm, spectral_norm or prune has a function of its own to remove it)"
            )


def _check_not_shared(backbone: Backbone, layers: Mapping[str, Layer]) -> None:
    """Refuse a weight of two layers: it is one parameter, but would be scored, masked and counted twice."""
    owners: dict[int, list[str]] = {}
    for name, module in backbone.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(name)
    for name, layer in layers.items():
        others = [owner for owner in owners.get(id(layer.weight), []) if owner != name]
        if others:
            raise CompressionError(
                f"expected layers with weights of their own, got {name!r}, which shares its weight with "
                f"{', '.join(others)}; give each layer its own weight, or use one layer in both places"
            )


def masked(network: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, weight and mask of every masked layer of any network."""
    for name, module in network.named_modules():
        if MASK in module._buffers:
            _check_plain({name: module})  # torch.nn.utils.prune has a buffer of this name, too
            yield name, module.get_parameter("weight"), module.get_buffer(MASK)


def removed(network: nn.Module) -> int:
    """Count the weights that masks remove."""
    return sum(mask.numel() - int(mask.count_nonzero()) for _, _, mask in masked(network))


def kept(backbone: Backbone) -> dict[str, Tensor]:
    """Return which weights no mask removes, by prunable layer, as `bool`."""
    found = {name: mask != 0 for name, _, mask in masked(backbone)}
    return {
        name: found[name] if name in found else torch.ones_like(layer.weight, dtype=torch.bool)
        for name, layer in prunable(backbone).items()
    }


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


def check_weights(backbone: Backbone) -> None:
    """Refuse a network whose prunable weights are not all finite.

    Raises:
        CompressionError: a weight is NaN or infinite; names the layer.
    """
    for name, layer in prunable(backbone).items():
        weight = layer.weight.detach()
        if bad := weight.numel() - int(weight.isfinite().sum()):
            raise CompressionError(
                f"expected finite weights, got {bad} NaN or infinite of {weight.numel()} in layer {name!r}; train the "
                "network again, with a smaller learning rate"
            )


class LazyScores(Mapping[str, Tensor]):
    """Scores that are computed whenever a layer's are read, so that those of all layers are never in memory.

    Args:
        names: of the layers.
        compute: returns the scores of a layer, by name.
    """

    def __init__(self, names: Iterable[str], compute: Callable[[str], Tensor]) -> None:
        self._names, self._compute = tuple(names), compute

    def __getitem__(self, name: str) -> Tensor:
        return self._compute(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def magnitudes(backbone: Backbone) -> Mapping[str, Tensor]:
    """Return the absolute weights of every prunable layer."""
    layers = prunable(backbone)
    return LazyScores(layers, lambda name: layers[name].weight.detach().abs())


def layer_budgets(backbone: Backbone, ratio: float) -> dict[str, int]:
    """Return how many weights each prunable layer keeps when all lose the same share.

    Args:
        backbone: the network; weights that it masks already count as lost.
        ratio: compression ratio over all parameters.

    Raises:
        CompressionError: the ratio is out of range, or the network is compressed further already.
    """
    keep = {name: int(mask.count_nonzero()) for name, mask in kept(backbone).items()}
    sizes = [layer.weight.numel() for layer in prunable(backbone).values()]
    quotas = layer_quotas(sizes, list(keep.values()), sum(sizes) - weights_to_remove(backbone, ratio))
    return dict(zip(keep, quotas, strict=True))


def keep_by_scores(backbone: Backbone, ratio: float, scores: Mapping[str, Tensor], scope: Scope) -> dict[str, Tensor]:
    """Mark the highest-scored weights.

    Args:
        backbone: the network; weights that it masks already are not marked.
        ratio: compression ratio over all parameters.
        scores: of every prunable layer, in its weight's shape; higher is kept. Equal ones: the first is kept. They are
            read several times, one layer at a time.
        scope: `global` ranks all weights together, `layer` removes the same share of every layer.

    Returns:
        By layer, `bool` in the weight's shape.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    number, layers = weights_to_remove(backbone, ratio), prunable(backbone)
    check_scores(scores)
    remaining = LazyScores(layers, lambda name: _without_masked(scores[name].detach(), layers[name]))
    if scope == "global":
        return keep_highest_of(remaining, count(backbone)[0] - number)
    budgets = layer_budgets(backbone, ratio)
    return {name: keep_highest_of({name: remaining[name]}, budget)[name] for name, budget in budgets.items()}


def _without_masked(scores: Tensor, layer: Layer) -> Tensor:
    """Put the scores of masked weights below all others."""
    mask = layer._buffers.get(MASK)
    return scores if mask is None else scores.masked_fill(mask == 0, -torch.inf)


def prune_by_scores(backbone: Backbone, ratio: float, scores: Mapping[str, Tensor], scope: Scope) -> Backbone:
    """Return a copy of a network whose lowest-scored weights are masked.

    Args:
        backbone: the network; weights that it masks already stay masked.
        ratio: compression ratio over all parameters.
        scores: as for `keep_by_scores`.
        scope: as for `keep_by_scores`.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    return masked_copy(backbone, keep_by_scores(backbone, ratio, scores, scope))


def prune_by_computed_scores(
    backbone: Backbone, ratio: float, compute: Callable[[], Mapping[str, Tensor]], scope: Scope
) -> Backbone:
    """Return what `prune_by_scores` does, computing scores only where weights are to be removed.

    Args:
        backbone: as for `prune_by_scores`.
        ratio: as for `prune_by_scores`.
        compute: returns the scores.
        scope: as for `prune_by_scores`.

    Raises:
        CompressionError: the ratio cannot be reached, or a score is not finite.
    """
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return masked_copy(backbone, kept(backbone))
    return prune_by_scores(backbone, ratio, compute(), scope)


def masked_copy(backbone: Backbone, keep: Mapping[str, Tensor]) -> Backbone:
    """Return a copy of a network with these masks: by layer, nonzero where the weight is kept."""
    pruned = copy.deepcopy(backbone)
    apply_masks(pruned, keep)
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
