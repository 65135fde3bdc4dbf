"""Edge-popup leaves the weights as they were initialised and trains which of them to keep.

    pruners: [{name: edge_popup, weights: initial}]

Every weight gets a score; each layer uses the weights of largest absolute score. Gradients pass the choice as if it
were the identity, and only scores are trained. The pruned network has nothing left to train.

In the authors' code the classifier is one of these layers, and there are no biases and no parameters of normalisation.
Here the classifier stays whole and as it was drawn. Nowhere in this package does a mask count there, so that choosing
from its weights would cost accuracy for no higher ratio (measured: docs/compression.md). Biases and normalisation stay
at their initial values, 0 and 1 in this package's own networks, which is as if there were none.

Reference: Ramanujan, Wortsman, Kembhavi, Farhadi & Rastegari, "What's Hidden in a Randomly Weighted Neural Network?"
(2020).
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import MASK
from sharedlabel.config.sections import Schedule
from sharedlabel.pruners._attention import written_out
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import refusals, replaced
from sharedlabel.pruners._masks import Layer, called_layers, masked_copy, prunable, removed, weights_to_remove
from sharedlabel.pruners._scores import check_scores, check_weights, layer_budgets
from sharedlabel.pruners._select import keep_highest

STRUCTURED = False
NESTED = False  # every ratio trains scores of its own
NEEDS = frozenset({"data", "labels", "gradients", "trainer"})
SCHEDULE = Schedule(when="initial")


@dataclass(frozen=True)
class Config:
    """Options of edge-popup.

    Args:
        weights: `signed_constant` gives all weights of a layer the magnitude of He's initialisation and keeps their
            signs, `initial` leaves them as they are.
        scaled: divide that magnitude by the square root of the share of weights that the layer keeps, so that signals
            keep their size; without effect in front of batch normalisation, which the authors' large networks have.
    """

    weights: Literal["signed_constant", "initial"] = "signed_constant"
    scaled: bool = True


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Train scores, mask all but the weights of largest absolute score in every layer, and freeze the network.

    At ratio 1 there is nothing to choose: the result is a copy, which can be trained.

    Args:
        backbone: the network, untrained.
        ratio: compression ratio over all parameters; every layer keeps the same share of its weights.
        config: options.
        context: the training function; its generator draws the initial scores.

    Raises:
        CompressionError: the ratio cannot be reached, there is no training function, or weights or scores are not
            finite.
    """
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return copy.deepcopy(backbone)
    train = context.trainer()
    check_weights(backbone)  # the sign of NaN is 0
    budgets = layer_budgets(backbone, ratio)
    frozen = copy.deepcopy(backbone).requires_grad_(False)
    places = prunable(frozen)
    if config.weights == "signed_constant":
        for name, place in places.items():
            _make_constant(place.weight, budgets[name] if config.scaled else place.weight.numel())
    written = written_out(frozen)
    popups = {name: _Popup(layer, budgets[name], context.generator) for name, layer in called_layers(written).items()}
    trained = replaced(written, popups)
    with refusals(frozen):
        train(trained)
    check_scores({name: popup.scores for name, popup in popups.items()})
    pruned = masked_copy(frozen, {name: popup.chosen().to(places[name].weight) for name, popup in popups.items()})
    _copy_statistics(trained, pruned)
    return pruned


class _Choose(torch.autograd.Function):
    """1 for the `k` highest scores and 0 for the others; the gradient passes unchanged."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: int) -> Tensor:
        del ctx
        return keep_highest(scores.flatten(), k).view_as(scores).to(scores.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        del ctx
        return gradient, None


class _Popup(nn.Module):
    """A layer with frozen weights that uses those of largest absolute score.

    Args:
        layer: the layer.
        k: weights that it uses.
        generator: draws the initial scores.
    """

    def __init__(self, layer: Layer, k: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer, self.k = layer, k
        scores = torch.empty(layer.weight.shape)
        # The authors' code draws scores as PyTorch draws the weights of these layers.
        nn.init.kaiming_uniform_(scores, a=math.sqrt(5), generator=generator)
        self.scores = nn.Parameter(scores.to(layer.weight.device))

    def chosen(self) -> Tensor:
        """Return 1 for the weights in use and 0 for the others; weights that are masked already are never used."""
        mask, scores = self.layer._buffers.get(MASK), self.scores.abs()
        chosen: Tensor = _Choose.apply(scores if mask is None else scores.masked_fill(mask == 0, -1), self.k)
        return chosen

    @property
    def weight(self) -> Tensor:
        """The weights in use, and zeros."""
        return self.layer.weight * self.chosen()

    @property
    def bias(self) -> Tensor | None:
        """The layer's bias."""
        return self.layer.bias

    def forward(self, inputs: Float[Tensor, "b ..."]) -> Float[Tensor, "b ..."]:
        """Apply the layer."""
        outputs: Tensor = torch.func.functional_call(self.layer, {"weight": self.weight}, (inputs,))
        return outputs


@torch.no_grad()
def _make_constant(weight: Tensor, used: int) -> None:
    """Give every weight the standard deviation of He's normal initialisation by fan-in, keeping its sign."""
    fan = weight[0].numel() * max(used, 1) / weight.numel()
    weight.copy_(weight.sign() * math.sqrt(2 / fan))


def _copy_statistics(trained: Backbone, pruned: Backbone) -> None:
    """Take over what training has estimated beside the scores: the statistics of batch normalisation."""
    estimated = dict(trained.named_buffers())
    for name, buffer in pruned.named_buffers():
        if name in estimated:
            buffer.copy_(estimated[name])
