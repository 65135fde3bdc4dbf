"""SynFlow: without data, the weights go that carry least of what flows from the inputs to the outputs.

An image of ones goes through the network with every parameter replaced by its absolute value; a weight's score is its
share of the summed logits. The scores of a layer add up to the whole flow, so no layer loses all its weights early as
long as scores are computed anew while weights are removed bit by bit.

Reference: Tanaka, Kunin, Yamins & Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow" (2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Schedule
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import replaced
from sharedlabel.pruners._masks import (
    Layer,
    check_scores,
    count,
    kept,
    magnitudes,
    mask_ceiling,
    masked_copy,
    prunable,
    weights_to_remove,
)
from sharedlabel.pruners._select import keep_highest_of

STRUCTURED = False
NESTED = False  # what is removed first depends on how far the rounds go
NEEDS = frozenset({"gradients"})
SCHEDULE = Schedule(when="initial")


@dataclass(frozen=True)
class Config:
    """Options of SynFlow.

    Args:
        rounds: times that scores are computed and weights removed; the density falls by the same factor each time.
    """

    rounds: PositiveInt = 100


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights of smallest synaptic flow, all layers together.

    Args:
        backbone: the network, usually untrained.
        ratio: compression ratio over all parameters.
        config: options.
        context: not used.

    Raises:
        CompressionError: the ratio cannot be reached, weights are not finite, or the flow overflows.
    """
    del context
    number = weights_to_remove(backbone, ratio)
    check_scores(magnitudes(backbone))
    return masked_copy(backbone, _select(backbone, count(backbone)[0] - number, config.rounds))


def _select(backbone: Backbone, number: int, rounds: int) -> dict[str, Tensor]:
    """Mark the weights that stay, by layer."""
    network, layers = absolute(backbone)
    keep = kept(backbone)
    for left in _geometric(sum(int(mask.count_nonzero()) for mask in keep.values()), number, rounds):
        scores = synaptic_flow(network, layers, keep)
        for name, score in scores.items():
            score.masked_fill_(~keep[name], -1)  # below all weights that remain, those without any flow included
        keep = keep_highest_of(scores, left)
    return keep


def _geometric(start: int, end: int, rounds: int) -> list[int]:
    """Return the weights left after every round, without the rounds that remove none.

    >>> _geometric(1000, 1, 3)
    [100, 10, 1]
    >>> _geometric(5, 3, 8)
    [4, 3]
    """
    if start == end:
        return []
    left = [start, *(round(start * (end / start) ** (step / rounds)) for step in range(1, rounds + 1))]
    return [after for before, after in itertools.pairwise(left) if after < before]


def absolute(backbone: Backbone) -> tuple[Backbone, dict[str, _Absolute]]:
    """Copy a network with the absolute values of all it holds, in float64 and in evaluation mode.

    Args:
        backbone: the network.

    Returns:
        The copy, and the layers in it that take the place of prunable ones, by name.
    """
    layers = {name: _Absolute(layer) for name, layer in prunable(backbone).items()}
    norms = {
        name: _Affine(module)
        for name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    }
    classifier = {"classifier": _Absolute(backbone.classifier)}
    network = replaced(backbone, {**layers, **norms, **classifier}).double().requires_grad_(False).eval()
    for name, tensor in network.state_dict().items():
        if name.rpartition(".")[0] not in norms:
            tensor.abs_()
    return network, layers


def synaptic_flow(
    network: Backbone, layers: Mapping[str, _Absolute], keep: Mapping[str, Bool[Tensor, "..."]]
) -> dict[str, Float[Tensor, "..."]]:
    """Return every weight's share of the flow.

    It is computed in float64, one layer after another, and returned in float32: shares lie in [0, 1].

    Args:
        network: from `absolute`.
        layers: from `absolute`.
        keep: by layer, the weights that remain.

    Raises:
        CompressionError: the flow is too large for float64.
    """
    for name, layer in layers.items():
        layer.reset(keep[name])
    # The authors' code feeds ones; they go past the normalisation, which would turn them into something else.
    ones = torch.ones(1, *network.image_shape, dtype=torch.float64, device=network.normalize.mean.device)
    with torch.enable_grad():
        embedding: Tensor = network.body(ones.requires_grad_().clone())
        flow = network.classify(embedding.flatten(1)).sum()
        if not flow.isfinite():
            raise CompressionError(
                f"expected a synaptic flow that fits float64, got {flow.item()}: products of absolute weights through "
                "the layers are too large; initialise the network with smaller weights or use another pruner"
            )
        (flow / (flow.item() or 1.0)).backward()
    return {name: layer.share for name, layer in layers.items()}


class _Absolute(nn.Module):
    """A layer with absolute weights in float64 that exist only while it computes, and its weights' shares of the flow.

    Args:
        layer: the layer; it stays as it is and is no submodule.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._layer = (layer,)
        self._keep: Tensor | None = None
        self._share: Tensor | None = None

    def reset(self, keep: Tensor) -> None:
        """Forget the shares; from now on only these weights remain."""
        self._keep, self._share = keep, None

    @property
    def share(self) -> Tensor:
        """The share of the flow that each weight carries, in the weight's shape."""
        weight = self._layer[0].weight
        return torch.zeros_like(weight, dtype=torch.float32) if self._share is None else self._share

    def add(self, share: Tensor) -> None:
        """Count what the weights carry in one call."""
        self._share = share.float() if self._share is None else self._share + share.float()

    @property
    def weight(self) -> Tensor:
        """There is none to be read from outside."""
        raise CompressionError(
            f"expected every prunable layer to be called, got one, {self._layer[0]}, whose weight the network reads "
            "directly; use another pruner, such as magnitude"
        )

    def forward(self, inputs: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Apply the layer."""
        outputs: Tensor = _Flow.apply(inputs, self)
        return outputs

    def values(self) -> Tensor:
        """Return the absolute weights that remain, and zeros."""
        values = self._layer[0].weight.detach().abs().double()
        return values if self._keep is None else values.mul_(self._keep)

    def compute(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Apply the layer with these weights."""
        layer = self._layer[0]
        values = {"weight": weight}
        if layer.bias is not None:
            values["bias"] = layer.bias.detach().double().abs()
        outputs: Tensor = torch.func.functional_call(layer, values, (inputs,))
        return outputs


class _Flow(torch.autograd.Function):
    """A layer's outputs; for the way back only its inputs are kept."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: _Absolute) -> Tensor:
        ctx.layer = layer
        ctx.save_for_backward(inputs)
        return layer.compute(layer.values(), inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        layer, weight = ctx.layer, ctx.layer.values().requires_grad_()
        inputs = ctx.saved_tensors[0].detach().requires_grad_()
        with torch.enable_grad():
            outputs = layer.compute(weight, inputs)
        back, slope = torch.autograd.grad(outputs, (inputs, weight), gradient)
        slope.mul_(weight.detach()).abs_()
        del weight, outputs  # before more is allocated
        layer.add(slope)
        return back, None


class _Affine(nn.Module):
    """Batch normalisation by the absolute values of its running statistics and parameters.

    Unlike `batch_norm` it keeps nothing for the way back.

    Args:
        norm: batch normalisation with running statistics.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: _BatchNorm) -> None:
        super().__init__()
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = (norm.running_var.double().abs() + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach().double().abs()
        shift = -norm.running_mean.double().abs() * scale
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift if norm.bias is None else shift + norm.bias.detach().double().abs())

    def forward(self, inputs: Float[Tensor, "b C ..."]) -> Float[Tensor, "b C ..."]:
        """Normalise a batch."""
        shape = (-1,) + (1,) * (inputs.ndim - 2)
        return (inputs * self.scale.view(shape)).add_(self.shift.view(shape))
