"""SynFlow needs no data: it removes the weights that carry least of what flows from the inputs to the outputs.

    pruners: [{name: synflow, rounds: 20}]

An image of ones goes through the network with every parameter replaced by its absolute value; a weight's score is its
share of the summed logits. The scores of a layer add up to the whole flow, so no layer loses all its weights early as
long as scores are computed anew while weights are removed bit by bit. Unlike in the authors' code, the classifier is
not pruned; its absolute weights carry the flow.

Reference: Tanaka, Kunin, Yamins & Ganguli, "Pruning neural networks without any data by iteratively conserving synaptic
flow" (2020).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import Schedule
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._absolute import AbsoluteLayer, absolute
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import check_reached, derivatives
from sharedlabel.pruners._masks import count, kept, masked_copy, weights_to_remove
from sharedlabel.pruners._scores import check_scores, magnitudes
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

    rounds: Annotated[int, Field(ge=1, le=10_000)] = 100


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


def synaptic_flow(
    network: Backbone, layers: Mapping[str, AbsoluteLayer], keep: Mapping[str, Bool[Tensor, "..."]]
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
    with derivatives(network):
        embedding: Tensor = network.body(ones.requires_grad_().clone())
        flow = network.classify(embedding.flatten(1)).sum()
        if not flow.isfinite():
            raise CompressionError(
                f"expected a synaptic flow that fits float64, got {flow.item()}: products of absolute weights through "
                "the layers are too large; initialise the network with smaller weights or use another pruner"
            )
        if flow.requires_grad:
            (flow / (flow.item() or 1.0)).backward()
    check_reached(name for name, layer in layers.items() if layer.called and not layer.reached)
    return {name: layer.share for name, layer in layers.items()}
