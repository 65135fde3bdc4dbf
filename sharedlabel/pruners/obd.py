"""Optimal brain damage removes the weights that the loss needs least, to second order with a diagonal Hessian.

    pruners: [{name: obd, examples: 256}]

The saliency of a weight w is h w^2 / 2. The curvature h is the diagonal of the Gauss-Newton matrix, by which the paper
approximates the Hessian: the mean over images of sum_y p_y (d log p_y / d w)^2, p the network's predictions. That is
also the Fisher information. The sum over classes is exact, so that the mask depends on no draw of labels; it takes one
way back for each class, in all 1.1 to 1.6 times as long as training on examples * classes images takes (ResNet-20 on
32 x 32 pixels, one CPU thread, 100 and 10 classes).

Unlike the paper, h is the exact diagonal, by single examples: the paper passes second derivatives from layer to layer
without the entries off the diagonal, and adds them up over the places of a shared weight. And the paper prunes and
retrains repeatedly; here all weights go at once unless the schedule is iterative.

Reference: LeCun, Denker & Solla, "Optimal Brain Damage" (1990).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._attention import layer_twins, written_out
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._examples import batches
from sharedlabel.pruners._gradients import check_called, check_reached, derivatives, squared_gradients
from sharedlabel.pruners._masks import Layer, prunable
from sharedlabel.pruners._scores import Scope

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"data", "gradients"})


@dataclass(frozen=True)
class Config:
    """Options of optimal brain damage.

    Args:
        examples: training images that the curvature is averaged over; time grows with examples * classes.
        scope: `global` compares all prunable weights, `layer` removes the same share of every layer.
    """

    examples: Count = 1024
    scope: Scope = "global"


def scores(backbone: Backbone, config: Config, context: Context) -> dict[str, Float[Tensor, "..."]]:
    """Return h w^2 / 2 of every prunable weight, nats.

    Args:
        backbone: the network; it is evaluated.
        config: options.
        context: training images.
    """
    curvature = fisher_diagonal(backbone, config, context)
    return {name: curvature[name].mul_(layer.weight.detach() ** 2 / 2) for name, layer in prunable(backbone).items()}


def fisher_diagonal(backbone: Backbone, config: Config, context: Context) -> dict[str, Float[Tensor, "..."]]:
    """Return the diagonal of the Fisher information for every prunable weight, nats per squared weight.

    Args:
        backbone: the network; it is evaluated.
        config: options.
        context: training images.
    """
    images = context.examples(config.examples)
    network = written_out(backbone).requires_grad_(False).eval()
    sums = {name: _SquaredGradients(name, layer) for name, layer in layer_twins(backbone).items()}
    for name, total in sums.items():
        network.get_submodule(name).register_forward_hook(total)
    for some, _ in batches(network, images):
        for total in sums.values():
            total.batch, total.reached = len(some), False
        with derivatives(backbone):
            # The images require a gradient, so that it flows through every layer though no weight requires one.
            inputs = network.normalize(some).requires_grad_()
            logits = network.classify(network.body(inputs.clone()).flatten(1))
            check_called(name for name, total in sums.items() if total.batch)
            for slope in _label_gradients(logits.detach()) if logits.requires_grad else ():
                torch.autograd.grad(logits, inputs, slope, retain_graph=True, allow_unused=True)
        check_reached(name for name, total in sums.items() if not total.reached)
    return {name: total.values / len(images) for name, total in sums.items()}


def _label_gradients(logits: Float[Tensor, "b c"]) -> Float[Tensor, "c b c"]:
    """Return, for each label, the loss's gradient by the logits times the square root of the label's probability.

    So the squares of what they give further back add up to the mean over labels.

    >>> _label_gradients(torch.zeros(1, 2)).tolist()
    [[[-0.3535533845424652, 0.3535533845424652]], [[0.3535533845424652, -0.3535533845424652]]]
    """
    p = logits.softmax(1)
    labels = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)[:, None]
    return p.T.sqrt()[..., None] * (p - labels)


class _SquaredGradients:
    """A forward hook that sums up the squared gradients that single examples give a layer's weight.

    Args:
        name: of the layer.
        layer: a twin without this hook.

    Attributes:
        values: the sum, in the weight's shape.
        batch: examples that the next call has to be given; 0 after it.
        reached: whether a gradient of the layer's output has come.
    """

    def __init__(self, name: str, layer: Layer) -> None:
        self.name, self.layer, self.batch, self.reached = name, layer, 0, False
        self.values = torch.zeros_like(layer.weight, requires_grad=False)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """Wait for the gradients of the layer's output."""
        given = inputs[0].detach()
        if len(given) != self.batch:
            got = f"{len(given)} inputs" if self.batch else "another call"
            raise CompressionError(
                f"expected layer {self.name!r} to be called once with a batch of examples, got {got}: the gradients of "
                "single examples cannot be told apart; use another pruner, such as snip"
            )
        self.batch = 0
        if output.requires_grad:
            output.register_hook(lambda gradient: self._add(given, gradient))

    def _add(self, inputs: Tensor, gradient: Tensor) -> None:
        self.reached = True
        self.values += squared_gradients(self.layer, inputs, gradient)
