"""What the layers of a network see on images, patch by patch, and scaling it."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._gradients import batches
from sharedlabel.pruners._groups import Group


def record_inputs(network: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Return a mapping that holds the first argument of the named layers after every pass of the network.

    The network keeps the hooks: pass a copy. A layer that runs twice shows its last input.
    """
    inputs: dict[str, Tensor] = {}

    def record(name: str) -> None:
        layer = network.get_submodule(name)
        layer.register_forward_pre_hook(lambda _, arguments: inputs.update({name: arguments[0]}))

    for name in names:
        record(name)
    return inputs


@torch.no_grad()
def layer_inputs(
    backbone: Backbone, names: Collection[str], images: Num[Tensor, "b ..."]
) -> Iterator[dict[str, Tensor]]:
    """Run a copy of a network in evaluation mode and yield, batch by batch, what its layers are given.

    Args:
        backbone: the network; it is left as it is.
        names: layers.
        images: what to run it on, on any device.
    """
    network = copy.deepcopy(backbone).eval()
    inputs = record_inputs(network, names)
    for part, _ in batches(network, images):
        network(part)
        yield inputs


def patches(layer: _ConvNd, inputs: Float[Tensor, "b C ..."]) -> Float[Tensor, "b groups q p"]:
    """Cut out what the q weights of a convolution's filters are multiplied with, in each of p places.

    Args:
        layer: convolution of any dimension, groups, stride, dilation and padding, not transposed.
        inputs: what it is given.
    """
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    found = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    dimensions = len(layer.kernel_size)
    for axis, (size, step, gap) in enumerate(zip(layer.kernel_size, layer.stride, layer.dilation, strict=True)):
        found = found.unfold(2 + axis, gap * (size - 1) + 1, step)[..., ::gap]
    places, positions = range(2, 2 + dimensions), range(2 + dimensions, 2 + 2 * dimensions)
    count = found.shape[2 : 2 + dimensions].numel()
    return found.permute(0, 1, *positions, *places).reshape(len(inputs), layer.groups, -1, count)


@torch.no_grad()
def scale_inputs(network: nn.Module, group: Group, factors: Float[Tensor, "channels"]) -> None:
    """Scale the weights that read the channels of a group, in place: the same as scaling what is read.

    Args:
        network: the network.
        group: a group of its channels.
        factors: one for every channel.
    """
    for slot in group.readers:
        weight = network.get_submodule(slot.layer).get_parameter("weight")
        inputs = torch.ones(weight.shape[1], dtype=weight.dtype)
        inputs[slot.index] = factors.to(weight.dtype)[:, None].cpu()
        weight.mul_(inputs.to(weight.device).view(1, -1, *[1] * (weight.ndim - 2)))
