"""GraSP: the weights stay whose removal would weaken the flow of gradients through the untrained network most.

Removing a weight w changes the squared norm of the gradient by about -2 w (Hg), with the gradient g and the Hessian H
of the loss. The authors score -w (Hg) and remove the largest; here the score is w (Hg), of which the largest stay.

Reference: Wang, Zhang & Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow" (2020).
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sharedlabel.backbones._base import Backbone
from sharedlabel.config import Schedule
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import Statistics, batches, differentiable_copy
from sharedlabel.pruners._masks import mask_ceiling, prune_by_computed_scores

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"data", "labels", "gradients"})
SCHEDULE = Schedule(when="initial")


@dataclass(frozen=True)
class Config:
    """Options of GraSP.

    Args:
        examples: training images that the loss is taken over; the authors take 10 of each class.
        temperature: the logits are divided by it, 200 in the authors' code.
        statistics: what batch normalisation uses while the loss is differentiated: those of the `batch`, as the
            authors do, or its `running` ones, which mean little before training.
    """

    examples: PositiveInt = 100
    temperature: PositiveFloat = 200.0
    statistics: Statistics = "batch"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights that contribute least to the norm of the gradient, all layers together.

    Args:
        backbone: the network, usually untrained.
        ratio: compression ratio over all parameters.
        config: options.
        context: training images and labels.

    Raises:
        CompressionError: the ratio cannot be reached, images or labels are missing, or scores are not finite.
    """
    scores = functools.partial(gradient_flow, backbone, config, context)
    return prune_by_computed_scores(backbone, ratio, scores, "global")


def gradient_flow(backbone: Backbone, config: Config, context: Context) -> Mapping[str, Tensor]:
    """Return w (Hg) of every prunable weight, H and g those of the mean loss (nats) over the examples.

    Args:
        backbone: the network.
        config: options.
        context: training images and labels.
    """
    images, labels = context.labelled(config.examples)
    network, weights = differentiable_copy(backbone, config.statistics)
    parameters = list(weights.values())

    def losses() -> Iterator[Tensor]:
        for some, classes in batches(network, images, labels):
            logits = network(some) / config.temperature
            yield nn.functional.cross_entropy(logits, classes, reduction="sum") / len(images)

    with torch.enable_grad(), _twice_differentiable(network):
        total = [torch.zeros_like(weight) for weight in parameters]
        for loss in losses():
            total = [old + new for old, new in zip(total, _gradients(loss, parameters), strict=True)]
        for loss in losses():
            gradients = _gradients(loss, parameters, create_graph=True)
            # The gradient of g'g(batch), g held fixed, is the batch's part of Hg.
            sum((one * other).sum() for one, other in zip(total, gradients, strict=True)).backward()  # type: ignore[union-attr]
    return {name: (weight.grad * weight).detach() for name, weight in weights.items() if weight.grad is not None}


def _gradients(loss: Tensor, weights: list[Tensor], create_graph: bool = False) -> tuple[Tensor, ...]:
    return torch.autograd.grad(loss, weights, create_graph=create_graph, materialize_grads=True)


@contextmanager
def _twice_differentiable(network: Backbone) -> Iterator[None]:
    """Choose kernels that have a second derivative: cuDNN's recurrence and fused attention have none."""
    recurrent = any(isinstance(module, nn.RNNBase) for module in network.modules())
    with torch.backends.cudnn.flags(enabled=not recurrent), sdpa_kernel(SDPBackend.MATH):
        yield
