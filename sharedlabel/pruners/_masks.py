"""Weight masks: which weights may be removed, exact top-k, and accounting.

How masks are kept and hold in every pass: `backbones/_masking.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._holding import release_masks
from sharedlabel.backbones._masking import MaskableWeight, count_parameters, enforce, masked_weights
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import check_ratio

Layer: TypeAlias = nn.Linear | _ConvNd

_PROJECTIONS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")  # those of attention that it has


def prunable(backbone: Backbone) -> dict[str, MaskableWeight]:
    """Return the weights that may be removed, by the name of their layer, in the order of the network.

    Those of convolutions, linear layers and attention; of the latter the projections of its inputs have names like
    layers (`body.attention.in_proj`), as the one of its output has (`body.attention.out_proj`).

    Raises:
        CompressionError: a layer shares its weight with another one, or computes it from other parameters.
    """
    places = {}
    for name, module in backbone.body.named_modules(prefix="body"):
        if isinstance(module, (nn.Linear, _ConvNd)):
            places[name] = MaskableWeight(module, "weight")
        elif isinstance(module, nn.MultiheadAttention):
            keys = [key for key in _PROJECTIONS if module._parameters.get(key, key) is not None]
            places |= {f"{name}.{key.removesuffix('_weight')}": MaskableWeight(module, key) for key in keys}
    _check_plain({**places, "classifier": MaskableWeight(backbone.classifier, "weight")})
    _check_not_shared(backbone, places)
    return places


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
    remaining = {name: mask != 0 for name, _, mask in masked(backbone)}
    return {
        name: remaining[name] if name in remaining else torch.ones_like(layer.weight, dtype=torch.bool)
        for name, layer in prunable(backbone).items()
    }


def count(backbone: Backbone) -> tuple[int, int]:
    """Count the prunable weights and all parameters, masked ones included."""
    weights = sum(layer.weight.numel() for layer in prunable(backbone).values())
    return weights, count_parameters(backbone)


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
