"""Butterfly pruning puts butterfly layers in the place of dense ones.

    pruners: [{name: butterfly, schedule: trained, init: project}]

Every butterfly keeps k = c log2 n of its outputs, with one c for the whole network that the compression ratio sets
(c = 1 in the paper). A layer that would need as many weights as a dense one stays dense. The paper replaces chosen
layers; here all linear layers of the body that get smaller, unless `layers` names some, and never the classifier.

Reference: Ailon, Leibovitch & Nair, "Sparse Linear Networks with a Fixed Butterfly Structure: Theory and Practice"
(2021).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._butterfly import ButterflyLinear
from sharedlabel.backbones._butterfly_paths import columns, draw_order, weight_counts
from sharedlabel.backbones._masking import count_parameters
from sharedlabel.config.sections import Schedule
from sharedlabel.errors import CompressionError, nearest
from sharedlabel.pruners._base import Context, check_ratio
from sharedlabel.pruners._masks import called_layers, masked, prunable
from sharedlabel.pruners._scores import check_weights

STRUCTURED = True
# The weights of a larger butterfly are others, not more of the same: they start at another scale.
NESTED = False
NEEDS: frozenset[str] = frozenset()
SCHEDULE = Schedule(when="initial")
REPEATABLE = False  # a butterfly layer gets no smaller butterflies


@dataclass(frozen=True)
class Config:
    """Options of butterfly layers.

    Args:
        layers: names of the linear layers to replace, such as `body.1`; null: all of the body that get smaller.
        init: `fjlt` starts from a random transform, for networks that are then trained; `project` comes as near to
            the dense weights as the random butterflies let it, for networks that are trained already.
    """

    layers: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    init: Literal["fjlt", "project"] = "fjlt"


@dataclass(frozen=True)
class _Growth:
    """The sizes that a layer can have, from k = 1 on both sides to dense.

    Attributes:
        orders: the order in which outputs of the butterfly on the input and on the output side are kept.
        scales: `[m+1]`, ascending, the c from which on the layer has each size; the last size is dense.
        ks: `[m 2]`, outputs kept on either side.
        weights: `[m+1]`, ascending, weights of the layer.
    """

    orders: tuple[Tensor, Tensor]
    scales: Float[Tensor, "m1"]
    ks: Int64[Tensor, "m 2"]
    weights: Int64[Tensor, "m1"]


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one output kept of every butterfly.

    Raises:
        CompressionError: the network has no layer to replace.
    """
    total = count_parameters(backbone)
    layers = _replaceable(backbone, config.layers)
    saved = sum(layer.weight.numel() - _smallest(layer) for layer in layers.values())
    return total / (total - saved)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Replace linear layers by butterfly layers whose parameter count is closest to the dense one / ratio.

    Args:
        backbone: the network; its parameters are the dense count.
        ratio: compression ratio over all parameters.
        config: options.
        context: its generator draws subsets, signs and weights.

    Raises:
        CompressionError: the network has no layer to replace, the ratio cannot be reached, or weights are not finite.
    """
    layers = _replaceable(backbone, config.layers)
    check_weights(backbone)
    total = count_parameters(backbone)
    highest = ceiling(backbone, config)
    check_ratio(
        ratio, highest, f"with k = 1 in {', '.join(layers)} {round(total / highest)} of {total} parameters remain"
    )
    growths = [_growth(layer, context.generator) for layer in layers.values()]
    left = sum(layer.weight.numel() for layer in layers.values()) - total * (1 - 1 / ratio)
    pruned = copy.deepcopy(backbone)
    for name, growth, size in zip(layers, growths, _sizes(growths, left), strict=True):
        if size < len(growth.ks):  # else the layer stays dense
            pruned.set_submodule(name, _butterfly(layers[name], growth, size, config.init, context.generator))
    return pruned


def _replaceable(backbone: Backbone, names: tuple[str, ...] | None) -> dict[str, nn.Linear]:
    """Return the linear layers to replace, by name."""
    if any(True for _ in masked(backbone)):
        raise CompressionError("expected a network without weight masks, got masked layers; start from the dense one")
    if any(isinstance(module, ButterflyLinear) for module in backbone.modules()):
        raise CompressionError("expected dense layers, got a network with butterfly layers; start from the dense one")
    linear = {name: layer for name, layer in called_layers(backbone).items() if isinstance(layer, nn.Linear)}
    called = _called(backbone, linear)
    candidates = {
        name: layer
        for name, layer in linear.items()
        if name in called and _is_only_called(layer, backbone.get_submodule(name.rpartition(".")[0]))
    }
    if names is None:
        chosen = {name: layer for name, layer in candidates.items() if _saves(layer)}
        if not chosen:
            raise CompressionError(
                "expected a network with linear layers in the body that butterflies make smaller, got "
                f"{_small_layers(len(candidates), len(prunable(backbone)))}; use a method "
                "for convolutions, or a network with wide linear layers"
            )
        _check_not_shared(backbone, chosen)
        return chosen
    for name in names:
        if name not in candidates:
            raise CompressionError(
                f"expected names of linear layers in the body, got layers={names}; {name!r}: "
                f"{nearest(name, candidates)}"
            )
        _check_saves(name, candidates[name])
    chosen = {name: candidates[name] for name in names}
    _check_not_shared(backbone, chosen)
    return chosen


def _small_layers(linear: int, layers: int) -> str:
    if not layers:
        return "a body without any layer"
    linear_ones = "no linear layer" if not linear else f"{linear} linear layer{'s' * (linear > 1)} too small for that"
    return f"{linear_ones} among {layers} layer{'s' * (layers > 1)}"


def _check_not_shared(backbone: Backbone, layers: Mapping[str, nn.Linear]) -> None:
    """Refuse a layer in several places: replacing it in one would leave the others dense."""
    for name, layer in layers.items():
        places = [place for place, module in backbone.named_modules(remove_duplicate=False) if module is layer]
        if len(places) > 1:
            raise CompressionError(
                f"expected linear layers that stand in one place, got {name!r}, which is also {', '.join(places[1:])}; "
                "give each place a layer of its own, or leave it out of layers"
            )


@torch.no_grad()
def _called(backbone: Backbone, names: Iterable[str]) -> set[str]:
    """Return which layers a network calls: others are left out, or it reads their weights, as Swin's attention does."""
    network = copy.deepcopy(backbone).eval()
    seen: set[str] = set()
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: seen.add(name))
    network(network.blank(device=network.normalize.mean.device))
    return seen


def _is_only_called(layer: nn.Linear, owner: nn.Module) -> bool:
    """Tell whether nothing but a call uses a linear layer; owners of some read their weights."""
    return type(layer) is nn.Linear and not isinstance(owner, nn.TransformerEncoderLayer)


def _smallest(layer: nn.Linear) -> int:
    """Count the weights of a butterfly layer with k = 1 on both sides: every stage of either has one row."""
    return sum(columns(layer.in_features)) + sum(columns(layer.out_features)) + 1


def _saves(layer: nn.Linear) -> bool:
    return min(layer.in_features, layer.out_features) > 1 and _smallest(layer) < layer.weight.numel()


def _check_saves(name: str, layer: nn.Linear) -> None:
    """Refuse a layer that the user named but that cannot get smaller."""
    if 1 in (layer.in_features, layer.out_features):
        raise CompressionError(
            f"expected at least 2 features on either side of a butterfly layer, got a butterfly width of 1 in {name!r} "
            f"({layer.in_features} -> {layer.out_features}); leave it out of layers"
        )
    if not _saves(layer):
        raise CompressionError(
            f"expected layers that butterflies make smaller, got {name!r} with {layer.weight.numel()} weights; "
            f"a butterfly layer needs {_smallest(layer)} or more; leave it out of layers"
        )


def _growth(layer: nn.Linear, generator: torch.Generator) -> _Growth:
    """Draw the outputs to keep and list the sizes of a layer: one more output kept with each, then dense."""
    widths = layer.in_features, layer.out_features
    orders = draw_order(widths[0], generator), draw_order(widths[1], generator)
    steps = [(torch.arange(2, width + 1) - 0.5) / math.log2(width) for width in widths]
    scales, step = torch.cat(steps).sort(stable=True)
    right = (step >= len(steps[0])).long()
    ks = 1 + torch.stack([1 - right, right], 1).cumsum(0)
    ks = torch.cat([torch.ones(1, 2, dtype=torch.int64), ks])
    counts = [weight_counts(width, order[:width]) for width, order in zip(widths, orders, strict=True)]
    weights = counts[0][ks[:, 0] - 1] + counts[1][ks[:, 1] - 1] + ks.prod(1)
    smaller = int((weights < layer.weight.numel()).sum())
    return _Growth(
        orders,
        torch.cat([torch.zeros(1), scales[:smaller]]),
        ks[:smaller],
        torch.cat([weights[:smaller], torch.tensor([layer.weight.numel()])]),
    )


def _sizes(growths: list[_Growth], target: float) -> list[int]:
    """Choose the size of each layer, growing all of them with c, so that their weights are closest to a target."""
    order = torch.cat([growth.scales[1:] for growth in growths]).argsort(stable=True)
    steps = torch.cat([growth.weights.diff() for growth in growths])[order]
    smallest = torch.tensor([sum(int(growth.weights[0]) for growth in growths)])
    number = int((torch.cat([smallest, smallest + steps.cumsum(0)]).double() - target).abs().argmin())
    owner = torch.arange(len(growths)).repeat_interleave(torch.tensor([len(growth.ks) for growth in growths]))
    return torch.bincount(owner[order[:number]], minlength=len(growths)).tolist()


@torch.no_grad()
def _butterfly(
    layer: nn.Linear, growth: _Growth, size: int, init: Literal["fjlt", "project"], generator: torch.Generator
) -> ButterflyLinear:
    """Return a butterfly layer for a dense one: its bias, device and type, and weights of its size or near its own."""
    k_in, k_out = growth.ks[size].tolist()
    biased = layer.bias is not None
    butterfly = ButterflyLinear(layer.in_features, layer.out_features, k_in, k_out, biased, generator, growth.orders)
    butterfly.to(layer.weight.device, layer.weight.dtype).train(layer.training)
    if biased:
        butterfly.get_parameter("bias").copy_(layer.bias)
    if init == "project":
        butterfly.project(layer.weight)
    else:
        butterfly.core.mul_(layer.weight.square().mean().sqrt() * (3 * layer.in_features) ** 0.5)
    return butterfly
