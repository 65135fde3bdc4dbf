"""Greedy forward selection grows every layer anew from one channel, each time by the one that lowers the loss most.

    pruners: [{name: greedy_forward, candidates: 20}]

The n channels of a layer are read scaled by n a_j; a_j = 1 / n is the dense network. Growing starts from a = 0. Step
k + 1, a step of Frank & Wolfe's method, sets a <- a + (e_i - a) / (k + 1) for the channel i, of some drawn ones not yet
chosen, that lowers the loss most. Layers are grown in the order of the network, those before already pruned.

As in the authors' code (`mobile2_prune.py`), no channel is chosen twice, hence a_j = 1 / k for k chosen ones, and that
scale stays in the network that is fine-tuned. Unlike there, layers stop at a common share of their channels instead of
a tolerated accuracy, one set of examples serves all steps, and nothing is fine-tuned between layers. Each channel that
is kept takes as much time as about shortlist + 3 passes of the examples through what follows its layer.

Reference: Ye, Gong, Nie, Zhou, Klivans & Liu, "Good Subnetworks Provably Exist: Pruning via Greedy Forward Selection"
(2020).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.pruners._activations import scale_inputs
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import Group, groups, keep_channels, prune_channels_by_scores, structured_ceiling
from sharedlabel.pruners._examples import check_examples
from sharedlabel.pruners._gradients import derivatives
from sharedlabel.pruners._growth import Growth, traced
from sharedlabel.pruners._removal import clear
from sharedlabel.pruners._scores import check_scores

STRUCTURED = True
NESTED = False
NEEDS: frozenset[str] = frozenset({"data", "labels"})


@dataclass(frozen=True)
class Config:
    """Options of greedy forward selection.

    Args:
        examples: labelled training images that the loss is computed on.
        candidates: channels drawn in every step, of which the best is chosen.
        shortlist: of these, as many as the loss is computed for: those where it falls most steeply. The first step
            computes it for all, and so do the others with a shortlist as long as the candidates.
        scale: whether the weights that read a layer keep the scale n / k of growing k of n channels.
    """

    examples: Count = 256
    candidates: Count = 50
    shortlist: Count = 4
    scale: bool = True


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one channel stays in every layer.

    Raises:
        CompressionError: channels cannot be removed from this network.
    """
    del config
    return structured_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Grow every layer to the same share of its channels, the parameter count closest to the dense one / ratio.

    Args:
        backbone: the network, usually trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: training images and labels, and the generator that draws candidates.

    Raises:
        CompressionError: there are no images or labels, channels cannot be removed from this network, the ratio cannot
            be reached, or the loss is not finite.
    """
    channel_groups = groups(backbone)
    sizes = _sizes(backbone, ratio, channel_groups)
    images, labels = context.labelled(config.examples)
    check_examples(backbone, images, labels)
    scaled = copy.deepcopy(backbone)
    grown = copy.deepcopy(backbone).requires_grad_(False).eval()  # pruned so far, but of the same size
    grown.to(memory_format=torch.channels_last)  # convolutions are faster, above all on CPUs
    device, module = grown.normalize.mean.device, traced(grown)
    layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
    given = grown.normalize(images.to(device, memory_format=layout))
    keep: dict[str, Tensor] = {}
    for name, group in channel_groups.items():
        if sizes[name] < group.size:
            growth = Growth(module, group, given, labels.to(device))
            with derivatives(grown):
                keep[name] = _grow(growth, sizes[name], config, context.generator)
            factors = keep[name] * (group.size / sizes[name] if config.scale else 1.0)
            scale_inputs(grown, group, factors)
            scale_inputs(scaled, group, factors)
            clear(grown, channel_groups, {name: keep[name]})
    return keep_channels(scaled, keep)


def _sizes(backbone: Backbone, ratio: float, channel_groups: Mapping[str, Group]) -> dict[str, int]:
    """Return the number of channels of every group at a ratio, the same share of each."""
    equal = {name: torch.zeros(group.size) for name, group in channel_groups.items()}
    pruned = prune_channels_by_scores(backbone, ratio, equal, "layer")
    return {name: len(pruned.get_submodule(name).get_parameter("weight")) for name in channel_groups}


def _grow(growth: Growth, size: int, config: Config, generator: torch.Generator) -> Bool[Tensor, "channels"]:
    """Choose channels until there are `size` of them."""
    chosen = torch.zeros(growth.group.size, dtype=torch.bool)
    for step in range(size):
        left = (~chosen).nonzero()[:, 0]
        drawn = left[torch.randperm(len(left), generator=generator)[: config.candidates].sort().values]
        if step and len(drawn) > config.shortlist:
            slopes = growth.slopes().cpu()[drawn]
            drawn = drawn[slopes.argsort(stable=True)[: config.shortlist].sort().values]
        losses = growth.losses(drawn).cpu()
        check_scores({growth.group.name: losses})
        best = int(drawn[losses.argmin()])
        growth.add(best)
        chosen[best] = True
    return chosen
