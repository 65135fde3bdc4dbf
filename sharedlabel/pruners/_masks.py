"""Weight masks: which weights may be removed, exact top-k, and accounting.

How masks are kept and hold in every pass: `backbones/_masking.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._holding import release_masks
from sharedlabel.backbones._masking import MaskableWeight, enforce, masked_weights
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import check_ratio
from sharedlabel.pruners._select import keep_highest_of, layer_quotas

Layer: TypeAlias = nn.Linear | _ConvNd
Scope: TypeAlias = Literal["global", "layer"]

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # those of attention that it has


def prunable(backbone: Backbone) -> dict[str, MaskableWeight]:
    """Return the weights that may be removed, by the name of their layer, in the order of the network.

    Those of convolutions, linear layers and attention; of the latter the projections of its inputs have names like
    layers (`body.attention.in_proj`), as the one of its output has (`body.attention.out_proj`).

    Raises:
        CompressionError: a layer shares its weight with another one, or computes it from other parameters.
    """
    found = {}
    for name, module in backbone.body.named_modules(prefix="body"):
        if isinstance(module, (nn.Linear, _ConvNd)):
            found[name] = MaskableWeight(module, "weight")
        elif isinstance(module, nn.MultiheadAttention):
            keys = [key for key in _PROJECTIONS if module._parameters.get(key, key) is not None]
            found |= {f"{name}.{key.removesuffix('_weight')}": MaskableWeight(module, key) for key in keys}
    _check_plain({**found, "classifier": MaskableWeight(backbone.classifier, "weight")})
    _check_not_shared(backbone, found)
    return found


def _check_plain(places: Mapping[str, MaskableWeight]) -> None:
    """Refuse weights and biases that are computed from other parameters, as by `weight_norm`.

    There is nothing of such a weight to set to zero, and no bias to leave out of a layer's response.
    """
    for name, place in places.items():
        for part in (place.key, "bias"):
            if part in place.owner._parameters or not hasattr(place.owner, part):
                continue
            others = ", ".join(key for key, _ in place.owner.named_parameters() if key not in (place.key, "bias"))
            raise CompressionError(
                f"expected layers whose {part} is a parameter, got {name!r}, which computes its {part} from {others}; "
                "undo that first (torch.nn.utils.parametrize.remove_parametrizations; what was added by the older "
                "torch.nn.utils.weight_norm, spectral_norm or prune has a function of its own to remove it)"
            )


def called_layers(backbone: Backbone) -> dict[str, Layer]:
    """Return the layers whose weights may be removed and that work by being called, by name.

    Attention has none: it reads its weights itself, that of its output projection, a linear layer, included. Written
    out (`_attention.py`) it has.

    Raises:
        CompressionError: a layer shares its weight with another one.
    """
    attention = {id(module.out_proj) for module in backbone.modules() if isinstance(module, nn.MultiheadAttention)}
    owners = {name: place.owner for name, place in prunable(backbone).items() if id(place.owner) not in attention}
    return {name: owner for name, owner in owners.items() if isinstance(owner, (nn.Linear, _ConvNd))}


def parameter_name(name: str, place: MaskableWeight) -> str:
    """Return the name in the network of the parameter that `prunable` lists under a layer's name."""
    return f"{name}.weight" if place.key == "weight" else f"{name}_weight"


def _check_not_shared(backbone: Backbone, places: Mapping[str, MaskableWeight]) -> None:
    """Refuse a weight of two layers: it is one parameter, but would be scored, masked and counted twice."""
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in backbone.named_modules():
        for parameter in module.parameters(recurse=False):
            owners.setdefault(id(parameter), []).append((name, module))
    for name, place in places.items():
        others = [other for other, module in owners[id(place.weight)] if module is not place.owner]
        if others:
            raise CompressionError(
                f"expected layers with weights of their own, got {name!r}, which shares its weight with "
                f"{', '.join(others)}; give each layer its own weight, or use one layer in both places"
            )


def masked(network: nn.Module) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Yield name, weight and mask of every masked layer of any network; names as of `prunable`."""
    names = {module: name for name, module in network.named_modules()}
    for place in masked_weights(network):
        assert place.mask is not None
        parts = [names[place.owner], place.key.removesuffix("weight").removesuffix("_")]
        name = ".".join(filter(None, parts))
        _check_plain({name: place})  # torch.nn.utils.prune has a buffer of this name, too
        yield name, place.weight, place.mask


def removed(network: nn.Module) -> int:
    """Count the weights that masks remove."""
    return sum(mask.numel() - int(mask.count_nonzero()) for _, _, mask in masked(network))


def check_removed(network: nn.Module) -> None:
    """Refuse a network that is not what its masks say.

    Raises:
        CompressionError: a weight that a mask removes is not zero; names the layer.
    """
    for name, weight, mask in masked(network):
        if back := int((weight[mask == 0] != 0).sum()):
            raise CompressionError(
                f"expected removed weights to be zero, got {back} of layer {name!r} that are not: something has "
                "written to them since; read the network's state_dict() or call enforce(network), which set them back"
            )


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
        f"{weights} of {total} parameters are prunable (weights of convolutions, linear layers and attention in the "
        "body, but not the classifier, biases or normalisation) and one weight has to stay",
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
    places = prunable(backbone)
    return LazyScores(places, lambda name: places[name].weight.detach().abs())


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
    number, places = weights_to_remove(backbone, ratio), prunable(backbone)
    check_scores(scores)
    remaining = LazyScores(places, lambda name: _without_masked(scores[name].detach(), places[name].mask))
    if scope == "global":
        return keep_highest_of(remaining, count(backbone)[0] - number)
    budgets = layer_budgets(backbone, ratio)
    return {name: keep_highest_of({name: remaining[name]}, budget)[name] for name, budget in budgets.items()}


def _without_masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Put the scores of masked weights below all others."""
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
    places = prunable(backbone)
    for name, mask in masks.items():
        # zeros_like keeps the memory format of the weight (channels_last), so that multiplying stays fast
        buffer = torch.zeros_like(places[name].weight).detach().copy_(mask != 0)
        places[name].owner.register_buffer(f"{places[name].key}_mask", buffer)
        backbone.has_masks = True
    enforce(backbone)


def bake(network: nn.Module) -> None:
    """Set removed weights to zero for good and delete the masks, in place: plain modules remain."""
    enforce(network)
    release_masks(network)
    for place in list(masked_weights(network)):
        place.owner._buffers.pop(f"{place.key}_mask")
    for module in network.modules():
        if isinstance(module, Backbone):
            module.has_masks = False


def collapsed_layers(network: nn.Module) -> tuple[str, ...]:
    """Name the layers whose mask leaves no weight."""
    return tuple(name for name, _, mask in masked(network) if not mask.any())
