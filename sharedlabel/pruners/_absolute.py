"""A network of absolute values in float64 that knows what share of the outputs each weight carries.

Weights in float64 exist for one layer at a time, and of the way forward only each layer's inputs are kept: the copy
needs little memory beside the network it was made from.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._attention import written_out
from sharedlabel.pruners._gradients import replaced
from sharedlabel.pruners._masks import Layer, called_layers


def absolute(backbone: Backbone) -> tuple[Backbone, dict[str, AbsoluteLayer]]:
    """Copy a network with the absolute values of all it holds, in float64 and in evaluation mode.

    Args:
        backbone: the network.

    Returns:
        The copy, and the layers in it that take the place of prunable ones, by name.
    """
    if any(isinstance(module, nn.MultiheadAttention) for module in backbone.modules()):
        backbone = written_out(backbone)  # a copy, which others can do without
    layers = {name: AbsoluteLayer(layer) for name, layer in called_layers(backbone).items()}
    norms = {
        name: _Affine(module)
        for name, module in backbone.named_modules()
        if isinstance(module, _BatchNorm) and module.running_var is not None
    }
    classifier = {"classifier": AbsoluteLayer(backbone.classifier)}
    network = replaced(backbone, {**layers, **norms, **classifier}).double().requires_grad_(False).eval()
    for name, tensor in network.state_dict().items():
        if name.rpartition(".")[0] not in norms:
            tensor.abs_()
    return network, layers


class AbsoluteLayer(nn.Module):
    """A layer with absolute weights in float64 that exist only while it computes, and its weights' shares of the flow.

    Args:
        layer: the layer; it stays as it is and is no submodule.

    Attributes:
        called: whether the layer has been, since the last reset.
    """

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self._layer = (layer,)
        self._keep: Tensor | None = None
        self._share: Tensor | None = None
        self.called = False

    def reset(self, keep: Tensor) -> None:
        """Forget the shares; from now on only these weights remain."""
        self._keep, self._share, self.called = keep, None, False

    @property
    def reached(self) -> bool:
        """Whether anything has come back through the layer."""
        return self._share is not None

    @property
    def share(self) -> Tensor:
        """The share of the flow that each weight carries, in the weight's shape."""
        weight = self._layer[0].weight
        return torch.zeros_like(weight, dtype=torch.float32) if self._share is None else self._share

    def add(self, share: Tensor) -> None:
        """Count what the weights carry in one call; not for the classifier, of which all weights remain."""
        if self._keep is not None:
            self._share = share.float() if self._share is None else self._share + share.float()

    @property
    def weight(self) -> Tensor:
        """The absolute weights that remain, for networks that read them without calling the layer."""
        weight = self.values()
        if not torch.is_grad_enabled():
            return weight
        read = weight.requires_grad_()
        values = read.detach()
        read.register_hook(lambda gradient: self.add((gradient * values).abs_()))
        return read

    @property
    def bias(self) -> Tensor | None:
        """The absolute bias."""
        bias = self._layer[0].bias
        return None if bias is None else bias.detach().double().abs()

    def forward(self, inputs: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Apply the layer."""
        self.called = True
        outputs: Tensor = _Flow.apply(inputs, self)
        return outputs

    def values(self) -> Tensor:
        """Return the absolute weights that remain, and zeros."""
        values = self._layer[0].weight.detach().abs().double()
        return values if self._keep is None else values.mul_(self._keep)

    def compute(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Apply the layer with these weights."""
        layer = self._layer[0]
        values = {"weight": weight} | ({} if self.bias is None else {"bias": self.bias})
        outputs: Tensor = torch.func.functional_call(layer, values, (inputs,))
        return outputs


class _Flow(torch.autograd.Function):
    """A layer's outputs; for the way back only its inputs are kept."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, layer: AbsoluteLayer) -> Tensor:
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
