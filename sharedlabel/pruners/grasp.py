"""GraSP keeps the weights whose removal would weaken the flow of gradients through the untrained network most.

    pruners: [{name: grasp, samples_per_class: 20}]

Removing a weight w changes the squared norm of the gradient by about -2 w (Hg), with the gradient g and the Hessian H
of the loss. The authors score -w (Hg) and remove the largest; here the score is w (Hg), of which the largest stay. As
in their code, g and H are those of all layers' weights, the classifier's too, but not of biases and normalisation.

Unlike their code (`pruner/GraSP.py`), the classifier is not pruned; linear layers are scored with the weights that are
then trained, where they draw new ones for the scores (Xavier's); all examples make one loss, where they make two
halves, sorted by class, so that batch normalisation sees half of the classes at a time; dropout is off.

Reference: Wang, Zhang & Grosse, "Picking Winning Tickets Before Training by Preserving Gradient Flow" (2020).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count, PositiveFloat
from sharedlabel.config.sections import Schedule
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._examples import batches, of_each_class
from sharedlabel.pruners._gradients import Statistics, check_reached, derivatives, differentiable_copy

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"data", "labels", "gradients"})
SCHEDULE = Schedule(when="initial")


@dataclass(frozen=True)
class Config:
    """Options of GraSP.

    Args:
        samples_per_class: training images of each class that the loss is taken over, fewer where a class has fewer
            among those that a pruner is given: 10 as in most of the authors' configurations for CIFAR-10 and CIFAR-100.
        temperature: the logits are divided by it, 200 in the authors' code.
        statistics: what batch normalisation uses while the loss is differentiated: those of the `batch`, as the
            authors do, or its `running` ones, which mean little before training.
    """

    samples_per_class: Count = 10
    temperature: PositiveFloat = 200.0
    statistics: Statistics = "batch"


def scores(backbone: Backbone, config: Config, context: Context) -> Mapping[str, Tensor]:
    """Return w (Hg) of every prunable weight, H and g those of the mean loss (nats) over the examples.

    Args:
        backbone: the network.
        config: options.
        context: training images and labels.
    """
    images, labels = context.labelled(sys.maxsize)
    chosen = of_each_class(labels, config.samples_per_class)
    images, labels = images[chosen], labels[chosen]
    network, weights = differentiable_copy(backbone, config.statistics)
    # The authors take the gradient by the classifier's weights too: removing others changes its norm there.
    parameters = [*weights.values(), network.classifier.weight.requires_grad_()]

    def losses() -> Iterator[Tensor]:
        for some, classes in batches(network, images, labels):
            logits = network(some) / config.temperature
            yield nn.functional.cross_entropy(logits, classes, reduction="sum") / len(images)

    with derivatives(network, twice=True):
        total = [torch.zeros_like(weight) for weight in parameters]
        for loss in losses():
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            check_reached(name for name, gradient in zip(weights, gradients, strict=False) if gradient is None)
            total = [old + new for old, new in zip(total, gradients, strict=True)]
        for loss in losses():
            gradients = torch.autograd.grad(loss, parameters, create_graph=True)
            # The gradient of g'g(batch), g held fixed, is the batch's part of Hg.
            sum((one * other).sum() for one, other in zip(total, gradients, strict=True)).backward()  # type: ignore[union-attr]
    # Where g does not depend on a weight, there is no gradient: Hg is zero.
    return {
        name: torch.zeros_like(weight) if weight.grad is None else (weight.grad * weight).detach()
        for name, weight in weights.items()
    }
