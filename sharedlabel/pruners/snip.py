"""SNIP removes the weights whose removal changes the loss of the untrained network least, to first order.

    pruners: [{name: snip, examples: 256}]

Unlike in the authors' code (`snip/model.py`), biases and the classifier are not scored and stay.

Reference: Lee, Ajanthan & Torr, "SNIP: Single-shot Network Pruning based on Connection Sensitivity" (2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.config.sections import Schedule
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._examples import batches
from sharedlabel.pruners._gradients import Statistics, check_reached, derivatives, differentiable_copy

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"data", "labels", "gradients"})
SCHEDULE = Schedule(when="initial")


@dataclass(frozen=True)
class Config:
    """Options of SNIP.

    Args:
        examples: training images that the loss is taken over; the authors take one batch, of 128 for CIFAR-10.
        statistics: what batch normalisation uses while the loss is differentiated: those of the `batch`, or its
            `running` ones, as in the authors' code (`is_train` is false in `snip/prune.py`). Before training these are
            0 and 1 and normalise nothing: what is scored is then another network than the one that is trained. Hence
            the default.
    """

    examples: Count = 128
    statistics: Statistics = "batch"


def scores(backbone: Backbone, config: Config, context: Context) -> Mapping[str, Tensor]:
    """Return |g w| of every prunable weight, g the gradient of the mean loss (nats) over the examples.

    Args:
        backbone: the network.
        config: options.
        context: training images and labels.
    """
    images, labels = context.labelled(config.examples)
    network, weights = differentiable_copy(backbone, config.statistics)
    with derivatives(network):
        for some, classes in batches(network, images, labels):
            # Signed gradients add up over batches in `grad`; the absolute value is taken of their sum.
            (nn.functional.cross_entropy(network(some), classes, reduction="sum") / len(images)).backward()
    gradients = {name: weight.grad for name, weight in weights.items() if weight.grad is not None}
    check_reached(name for name in weights if name not in gradients)
    return {name: (gradient * weights[name]).detach().abs() for name, gradient in gradients.items()}
