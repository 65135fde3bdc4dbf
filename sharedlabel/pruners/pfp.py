"""PFP physically removes the channels that the layers behind them are least sensitive to.

    pruners: [{name: pfp, method: randomized}]

The sensitivity s_j of a channel is the largest share that it has in any response behind it: the maximum over images,
filters i and patches of g_ij = w_ij a_j / sum_k w_ik a_k, where w_ij a_j is summed over the weights of filter i for
channel j, and positive and negative terms are separate sums. By the paper's theorem, a layer whose input channels are
drawn m = K L (6 + 2 epsilon) / epsilon^2 sum_j s_j times with probabilities p_j = s_j / sum_k s_k keeps its responses
within a relative error epsilon, with probability 1 - delta. L = log(8 (p + 1) q / delta) for p patches of an image and
q weights of a filter for a channel, as in the authors' code (torchprune, `sipp_allocator.py`). One epsilon for all
layers gives each its m and so its number of distinct channels.

Unlike the authors' code, g_ij adds up the weights of a channel, which go together, where it takes the largest share of
a single one; channels that several layers read are removed once no layer needs them, by the largest sensitivity and
L, where it chooses each layer's own. Their third method, which keeps some channels and draws the rest, is left out.

Reference: Liebenwein, Baykal, Lang, Feldman & Rus, "Provable Filter Pruning for Efficient Neural Networks" (2020).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Float64, Int64, Num
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._activations import layer_inputs, scale_inputs
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._channels import Group, groups, keep_channels, prune_channels_by_scores, structured_ceiling
from sharedlabel.pruners._scores import check_scores

STRUCTURED = True
NESTED = True
NEEDS: frozenset[str] = frozenset({"validation"})

_IMAGES = 16  # whose patches are in memory together
_ELEMENTS = 2**19  # shares computed at once; few stay in the cache
_GRID = 1024  # budgets at which the number of distinct channels is computed
_DELTA = 1e-16  # the authors' probability that a margin does not hold


@dataclass(frozen=True)
class Config:
    """Options of provable filter pruning.

    Args:
        examples: validation images on which sensitivities are measured. The authors' code takes 3 log(8 n N / delta), n
            the outputs of the largest layer, N of all: 152 for LeNet-300-100, 183 for ResNet-20 on 32 x 32 pixels.
            Here fewer, to save time.
        method: `deterministic` keeps the most sensitive channels of every layer; `randomized` draws them with
            probabilities in proportion to their sensitivities and scales the weights that read them, so that the
            expected responses are those of the dense network.
    """

    examples: Count = 64
    method: Literal["deterministic", "randomized"] = "deterministic"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio: one channel stays in every layer.

    Raises:
        CompressionError: channels cannot be removed from this network.
    """
    del config
    return structured_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Shrink the error margin's budgets until the parameter count is closest to the dense one / ratio.

    Args:
        backbone: the network, usually trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: validation images, and the generator of the draws.

    Raises:
        CompressionError: there are no validation images, channels cannot be removed from this network, or the ratio
            cannot be reached, or activations are not finite.
    """
    channel_groups = groups(backbone)
    images = context.sensitivity_set(config.examples)
    sensitive = sensitivities(backbone, channel_groups, images)
    check_scores(sensitive)
    logarithms = union_bounds(backbone, channel_groups, images)
    scores = {name: margins(sensitivity) * logarithms[name] for name, sensitivity in sensitive.items()}
    pruned = prune_channels_by_scores(backbone, ratio, scores, "global")
    if config.method == "deterministic":
        return pruned
    scaled = copy.deepcopy(backbone)
    keep = {}
    for name, group in channel_groups.items():
        size = len(pruned.get_submodule(name).get_parameter("weight"))
        factors = draw(sensitive[name], size, context.generator)
        scale_inputs(scaled, group, factors)
        keep[name] = factors > 0
    return keep_channels(scaled, keep)


def sensitivities(
    backbone: Backbone, channel_groups: Mapping[str, Group], images: Num[Tensor, "b ..."]
) -> dict[str, Float64[Tensor, "channels"]]:
    """Return the sensitivity of every channel, by group: the largest over the layers that read it.

    Args:
        backbone: the network; a copy is run in evaluation mode.
        channel_groups: its channel groups.
        images: the sensitivity set.
    """
    result = {name: torch.zeros(group.size, dtype=torch.float64) for name, group in channel_groups.items()}
    layers = {slot.layer for group in channel_groups.values() for slot in group.readers}
    for inputs in layer_inputs(backbone, layers, images):
        for name, group in channel_groups.items():
            for slot in group.readers:
                share = layer_sensitivity(backbone.get_submodule(slot.layer), inputs[slot.layer], slot.index)
                result[name] = torch.maximum(result[name], share.cpu().double())
    return result


def union_bounds(
    backbone: Backbone, channel_groups: Mapping[str, Group], images: Num[Tensor, "b ..."]
) -> dict[str, float]:
    """Return log(8 (p + 1) q / delta) for every group: the largest of the layers that read it.

    Args:
        backbone: the network; a copy is run in evaluation mode.
        channel_groups: its channel groups.
        images: of which one is looked at.
    """
    layers = {slot.layer for group in channel_groups.values() for slot in group.readers}
    inputs = next(layer_inputs(backbone, layers, images[:1]))

    def bound(name: str) -> float:
        layer = backbone.get_submodule(name)
        # The authors count every position that a linear layer is applied to as an image.
        places = 1 if isinstance(layer, nn.Linear) else _patches(layer, inputs[name]).shape[2]
        return math.log(8 * (places + 1) * layer.get_parameter("weight")[0, 0].numel() / _DELTA)

    return {name: max(bound(slot.layer) for slot in group.readers) for name, group in channel_groups.items()}


@torch.no_grad()
def layer_sensitivity(
    layer: nn.Module, inputs: Float[Tensor, "b ..."], index: Int64[Tensor, "channels k"]
) -> Float[Tensor, "channels"]:
    """Return the largest share of each channel in any response of a layer.

    Args:
        layer: convolution in two dimensions without groups, or linear layer.
        inputs: what it is given.
        index: the inputs that belong to each channel.
    """
    shares = [inputs.new_zeros(len(index))]
    weight = layer.get_parameter("weight")
    # Weights and activations are split by sign, so that terms in a sum do not cancel.
    kernels = _parts(weight.reshape(*weight.shape[:2], -1))  # [o d q]
    by_channel = [kernel[:, index].flatten(2).transpose(0, 1) for kernel in kernels]  # [channels o n]
    for part in (half for some in inputs.split(_IMAGES) for half in _parts(some)):
        patches = _patches(layer, part)
        terms = patches[index].flatten(1, 2)  # [channels n p]
        for kernel, own in zip(kernels, by_channel, strict=True):
            sums = kernel.flatten(1) @ patches.flatten(0, 1)
            # The authors take every sum up to 1e-7 for nothing; then it would matter how weights are scaled.
            inverse = torch.where(sums >= torch.finfo(sums.dtype).tiny, 1 / sums, 0)  # [o p]
            step = max(own.shape[2], _ELEMENTS // own[..., 0].numel())
            for values, scale in zip(terms.split(step, dim=2), inverse.split(step, dim=1), strict=True):
                shares.append(torch.bmm(own, values).mul_(scale).amax((1, 2)))
    return torch.stack(shares).amax(0)


def _patches(layer: nn.Module, inputs: Tensor) -> Float[Tensor, "d q p"]:
    """Return what each of the q positions in a layer's kernel is multiplied with, for all p patches of all images."""
    if isinstance(layer, nn.Linear):
        return inputs.flatten(0, -2).T[:, None]
    if not isinstance(layer, nn.Conv2d):
        raise CompressionError(
            f"expected two-dimensional convolutions and linear layers, got {type(layer).__name__}; choose a pruner "
            "that scores weights (filter_l1)"
        )
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    padded = F.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    columns = F.unfold(padded, layer.kernel_size, layer.dilation, stride=layer.stride)
    return columns.transpose(0, 1).reshape(layer.in_channels, -1, columns[:, 0].numel())


def _parts(values: Tensor) -> list[Tensor]:
    """Split values into the positive and the negative ones, these without their sign; only what there is."""
    return [part for part in (values.clamp(min=0), (-values).clamp(min=0)) if part.any()]


def margins(sensitivity: Float64[Tensor, "channels"]) -> Float64[Tensor, "channels"]:
    """Return for every channel how large the error margin may grow until its layer does without it.

    A factor t = K (6 + 2 epsilon) / epsilon^2 shared by all layers gives a layer m = t L sum_j s_j draws and the
    expected number of distinct channels sum_j 1 - (1 - p_j)^m, rounded up, as in the authors' code; only m is not
    rounded. The margin of the r-th most sensitive channel is 1 / t where that number exceeds r - 1, here for L = 1; it
    grows with epsilon. Removing the channels of smallest margin in all layers is a bisection over epsilon, to one
    channel.

    Args:
        sensitivity: of the channels of one group.

    Returns:
        Margins, 0 for channels without any sensitivity.
    """
    ordered, order = sensitivity.sort(descending=True, stable=True)
    total, positive = sensitivity.sum(), ordered[ordered > 0]
    result = torch.zeros_like(sensitivity)
    if len(positive):
        p = positive / total
        log_draws = torch.linspace(-8, 5 - math.log(p[-1]), _GRID, dtype=torch.float64)
        distinct = -torch.expm1(log_draws.exp()[:, None] * torch.log1p(-p)).sum(1)
        reached = np.interp(np.arange(len(p)), distinct.numpy(), log_draws.numpy())
        result[order[: len(p)]] = total * torch.from_numpy(reached).neg().exp()
    return result


def draw(
    sensitivity: Float64[Tensor, "channels"], kept: int, generator: torch.Generator
) -> Float64[Tensor, "channels"]:
    """Draw channels with replacement, with probability ~ sensitivity, until `kept` different ones are drawn.

    With draws at the ticks of independent Poisson clocks, a channel is first drawn after an exponential time of rate
    s_j, and m = t sum_j s_j draws are expected until a time t. At the time t when one channel too many would be drawn,
    c_j / (m p_j) = c_j / (t s_j) for c_j draws, the weight of the paper, is unbiased in spite of the stopping rule. So
    is its expectation given c_j > 0, which varies less and is returned: 1 / (1 - exp(-t s_j)).

    Args:
        sensitivity: of the channels of one group.
        kept: different channels to draw.
        generator: where draws come from.

    Returns:
        Factors of expectation 1, 0 for channels that are not drawn. All are 1 if all channels are kept.

    Reference: Cohen & Kaplan, "Summarizing Data using Bottom-k Sketches" (2007), for the unbiased weights.
    """
    first = torch.empty_like(sensitivity).exponential_(generator=generator) / sensitivity
    order = first.argsort(stable=True)
    end = first[order[kept]] if kept < len(order) else torch.tensor(torch.inf)
    factors = torch.where(sensitivity > 0, -1 / torch.expm1(-end * sensitivity), 1.0)
    factors[order[kept:]] = 0
    return factors
