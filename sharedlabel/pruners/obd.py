"""Optimal brain damage: the weights go whose removal raises the loss least, to second order with a diagonal Hessian.

The saliency of a weight w is h w^2 / 2. The curvature h is the diagonal of the Fisher information: the mean squared
gradient of the log-likelihood of single examples, with labels drawn from the network's own predictions. On average over
labels it is that of the Gauss-Newton matrix, by which the paper approximates the Hessian.
The paper prunes and retrains repeatedly; here all weights go at once unless the schedule is iterative.

Reference: LeCun, Denker & Solla, "Optimal Brain Damage" (1990).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from pydantic import PositiveInt
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._attention import layer_twins, written_out
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import batches, check_called, gradients_by_example
from sharedlabel.pruners._masks import Layer, Scope, mask_ceiling, prunable, prune_by_computed_scores

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"data", "gradients"})


@dataclass(frozen=True)
class Config:
    """Options of optimal brain damage.

    Args:
        examples: training images that the curvature is averaged over.
        scope: `global` compares all prunable weights, `layer` removes the same share of every layer.
    """

    examples: PositiveInt = 1024
    scope: Scope = "global"


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights of smallest saliency.

    Args:
        backbone: the network, trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: training images; its generator draws the labels.

    Raises:
        CompressionError: the ratio cannot be reached, images are missing, the network does not call every layer once
            with a batch, or scores are not finite.
    """
    scores = functools.partial(saliencies, backbone, config, context)
    return prune_by_computed_scores(backbone, ratio, scores, config.scope)


def saliencies(backbone: Backbone, config: Config, context: Context) -> dict[str, Float[Tensor, "..."]]:
    """Return h w^2 / 2 of every prunable weight, nats.

    Args:
        backbone: the network; it is evaluated.
        config: options.
        context: training images; its generator draws the labels.
    """
    curvature = fisher_diagonal(backbone, config, context)
    return {name: curvature[name].mul_(layer.weight.detach() ** 2 / 2) for name, layer in prunable(backbone).items()}


def fisher_diagonal(backbone: Backbone, config: Config, context: Context) -> dict[str, Float[Tensor, "..."]]:
    """Return the diagonal of the Fisher information for every prunable weight, nats per squared weight.

    Args:
        backbone: the network; it is evaluated.
        config: options.
        context: training images; its generator draws one label for each.
    """
    images = context.examples(config.examples)
    network = written_out(backbone).requires_grad_(False).eval()
    sums = {name: _SquaredGradients(name, layer) for name, layer in layer_twins(backbone).items()}
    for name, total in sums.items():
        network.get_submodule(name).register_forward_hook(total)
    for some, _ in batches(network, images):
        for total in sums.values():
            total.batch = len(some)
        with torch.enable_grad():
            # The images require a gradient, so that it flows through every layer though no weight requires one.
            inputs = network.normalize(some).requires_grad_().clone()
            logits = network.classify(network.body(inputs).flatten(1))
            labels = _draw(logits.detach(), context.generator)
            nn.functional.cross_entropy(logits, labels, reduction="sum").backward()
        check_called(name for name, total in sums.items() if total.batch)
    return {name: total.values / len(images) for name, total in sums.items()}


class _SquaredGradients:
    """A forward hook that sums up the squared gradients that single examples give a layer's weight.

    Args:
        name: of the layer.
        layer: a twin without this hook.

    Attributes:
        values: the sum, in the weight's shape.
        batch: examples that the next call has to be given; 0 after it.
    """

    def __init__(self, name: str, layer: Layer) -> None:
        self.name, self.layer, self.batch = name, layer, 0
        self.values = torch.zeros_like(layer.weight, requires_grad=False)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """Wait for the gradient of the layer's output."""
        given = inputs[0].detach()
        if len(given) != self.batch:
            got = f"{len(given)} inputs" if self.batch else "another call"
            raise CompressionError(
                f"expected layer {self.name!r} to be called once with a batch of examples, got {got}: the gradients of "
                "single examples cannot be told apart; use another pruner, such as snip"
            )
        self.batch = 0
        output.register_hook(lambda gradient: self._add(given, gradient))

    def _add(self, inputs: Tensor, gradient: Tensor) -> None:
        for by_example in gradients_by_example(self.layer, inputs, gradient):
            self.values += by_example.square_().sum(0)


def _draw(logits: Float[Tensor, "b c"], generator: torch.Generator) -> Int64[Tensor, "b"]:
    """Draw a class for each example from its predicted probabilities; on the CPU, whatever the device."""
    cumulative = logits.double().softmax(1).cumsum(1).cpu()
    uniform = torch.rand(len(logits), 1, dtype=torch.float64, generator=generator)
    drawn = torch.searchsorted(cumulative, uniform).clamp(max=logits.shape[1] - 1)
    return drawn.squeeze(1).to(logits.device)
