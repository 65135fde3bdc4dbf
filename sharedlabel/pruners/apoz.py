"""APoZ physically removes the channels whose ReLU is zero most often.

    pruners: [{name: apoz, examples: 2048}]

The average percentage of zeros (APoZ) of a channel is the share of its outputs after the ReLU that are exactly zero,
over examples and positions. The ReLU of a channel group is the last one before the layers that read the group, with
pooling in between or not. Where a residual stream is read after several ReLUs, the mean of their shares counts; the
paper has no residual networks.

Unlike the paper, which counts on validation examples, zeros are counted on training images: no label and no guarantee
is at stake, and validation images are for choosing ratios here. And the paper removes, from few layers, the channels
whose APoZ is more than a standard deviation above their layer's mean, and repeats; here the ratio says how many, and
all go at once unless the schedule is iterative.

Reference: Hu, Peng, Tai & Tang, "Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
Architectures" (2016).
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Num
from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.utils._pytree import tree_leaves

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._activations import record_inputs
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import Slot, groups, structured_ceiling
from sharedlabel.pruners._examples import batches
from sharedlabel.pruners._scores import Scope, check_weights

STRUCTURED = True
NESTED = True
NEEDS: frozenset[str] = frozenset({"data"})


@dataclass(frozen=True)
class Config:
    """Options of APoZ pruning.

    Args:
        examples: training images on which zeros are counted.
        scope: `layer` removes the same share of every layer's channels, `global` compares the zeros of all channels.
    """

    examples: Count = 1024
    scope: Scope = "layer"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one channel stays in every layer.

    Raises:
        CompressionError: channels cannot be removed from this network, or some never pass a ReLU.
    """
    del config
    zero_shares(backbone, backbone.blank())
    return structured_ceiling(backbone)


def scores(backbone: Backbone, config: Config, context: Context) -> dict[str, Float64[Tensor, "channels"]]:
    """Return the share of outputs of every channel that are not zero, by group; higher is kept.

    Args:
        backbone: the network, usually trained.
        config: options.
        context: training images.

    Raises:
        CompressionError: there are no images, channels cannot be removed from this network, some never pass a ReLU, or
            weights or logits are not finite.
    """
    images = context.examples(config.examples)
    check_weights(backbone)
    return {name: 1 - share for name, share in zero_shares(backbone, images).items()}


def zero_shares(backbone: Backbone, images: Num[Tensor, "b ..."]) -> dict[str, Float64[Tensor, "channels"]]:
    """Return the APoZ of every prunable channel, a fraction in [0, 1], by channel group.

    Args:
        backbone: the network; a copy is run in evaluation mode.
        images: what to count zeros on.

    Raises:
        CompressionError: the channels of a group never pass a ReLU, or logits are not finite.
    """
    readers = {name: group.readers for name, group in groups(backbone).items()}
    # Gradients are on only because they leave a graph behind that tells which ReLU a layer reads after.
    network = copy.deepcopy(backbone).requires_grad_(True).eval()
    inputs = record_inputs(network, {slot.layer for slots in readers.values() for slot in slots})
    layers = _record_layers(network)
    shares: dict[str, Tensor] = {name: torch.zeros(()) for name in readers}
    for part, _ in batches(network, images):
        layers.clear()
        with torch.enable_grad():
            _check_logits(network(part).detach())
        for name, slots in readers.items():
            relus = {_relu_before(inputs[slot.layer], layers, slot.layer): slot for slot in slots}
            last = isinstance(network.get_submodule(name), nn.Linear)
            share = torch.stack([_zeros(relu, slot, inputs[slot.layer], last) for relu, slot in relus.items()]).mean(0)
            shares[name] = shares[name] + share * (len(part) / len(images))
    return shares


def _check_logits(logits: Float[Tensor, "b c"]) -> None:
    if bad := logits.numel() - int(logits.isfinite().sum()):
        raise CompressionError(
            f"expected finite logits, got {bad} NaN or infinite of {logits.numel()} on finite images: a parameter of "
            "the classifier or of batch normalisation is not finite, or activations overflow; train the network again, "
            "with a smaller learning rate"
        )


def _record_layers(network: nn.Module) -> set[Node]:
    """Make every pass of a network note the nodes of the graph that its layers with parameters end with."""
    nodes: set[Node] = set()

    def note(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        ends = (tensor.grad_fn for tensor in tree_leaves(output) if isinstance(tensor, Tensor))  # attention has several
        nodes.update(node for node in ends if node is not None)

    for module in network.modules():
        if any(True for _ in module.parameters(recurse=False)):
            module.register_forward_hook(note)
    return nodes


def _relu_before(seen: Tensor, layers: Collection[Node], reader: str) -> Node:
    """Follow a layer's input back to the ReLU that it comes from, through pooling and the like, to the next layer."""
    ahead, relus, only_relus = [seen.grad_fn], set[Node](), True
    while ahead:
        node = ahead.pop()
        if node is None or node in layers:
            only_relus = False
        elif node.name().startswith("ReluBackward"):
            relus.add(node)
        else:
            ahead.extend(before for before, _ in node.next_functions)
    if not only_relus or len(relus) != 1:
        sources = "several" if only_relus else "other sources"
        raise CompressionError(
            f"expected all that {reader!r} reads to come from one ReLU, got {sources}: "
            "APoZ counts the zeros that a ReLU leaves; choose a pruner that scores weights (filter_l1)"
        )
    return relus.pop()


def _zeros(relu: Node, slot: Slot, seen: Tensor, last: bool) -> Float64[Tensor, "channels"]:
    """Return the share of zeros in the channels of a group, of what a ReLU put out before a layer read it.

    Args:
        relu: the ReLU.
        slot: where the channels lie in what the layer reads.
        seen: what the layer reads.
        last: whether channels are the last dimension of the output, as a linear layer writes them, else the second.
    """
    output: Tensor = relu._saved_result  # type: ignore[attr-defined]
    if last:
        return (output == 0).flatten(0, -2).double().mean(0).cpu()[slot.index[:, 0] % output.shape[-1]]
    per_channel = seen.shape[1] // output.shape[1]  # more than 1 where the map is flattened
    zero = (output == 0).transpose(0, 1).flatten(1).double().mean(1).cpu()
    return zero[slot.index[:, 0] // per_channel]
