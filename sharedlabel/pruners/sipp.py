"""SiPP: the weights go that contribute least to the inputs of any unit, on any of a few images.

The sensitivity of a weight w_ij, on inputs a that are not negative, is its share w_ij a_j / sum_k w_ik a_k in what unit
i gets, averaged over the patches of a convolution, and of that the largest value over the images. Positive and negative
weights are taken apart, so that shares lie in [0, 1]; so are positive and negative inputs, which normalised images
have: they count as two images, as in the authors' code.

References: Baykal, Liebenwein, Gilitschenski, Feldman & Rus, "SiPPing Neural Networks: Sensitivity-informed Provable
Pruning of Neural Networks" (2019). Sampling: Cohen & Kaplan, "Summarizing Data using Bottom-k Sketches" (2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import PositiveInt
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._attention import layer_twins, written_out
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._gradients import batches, check_called, gradients_by_example
from sharedlabel.pruners._masks import (
    Layer,
    check_scores,
    keep_by_scores,
    kept,
    magnitudes,
    mask_ceiling,
    masked_copy,
    prunable,
    removed,
    weights_to_remove,
)

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"validation"})


@dataclass(frozen=True)
class Config:
    """Options of SiPP.

    Args:
        method: `deterministic` keeps the weights of highest sensitivity, all layers together; `randomized` draws the
            weights with probabilities proportional to their sensitivities, with replacement, until the number to keep
            has been drawn, and divides each by its probability of being among them, so that every layer's output is
            right on average.
        examples: validation images that sensitivities are measured on.
    """

    method: Literal["deterministic", "randomized"] = "deterministic"
    examples: PositiveInt = 128


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return the largest compression ratio."""
    del config
    return mask_ceiling(backbone)


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights of smallest sensitivity, or those that sampling by sensitivity leaves out.

    Args:
        backbone: the network, trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: validation images; its generator draws for `randomized`.

    Raises:
        CompressionError: the ratio cannot be reached, images are missing, a layer is not called, or weights are not
            finite.
    """
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return masked_copy(backbone, kept(backbone))
    check_scores(magnitudes(backbone))
    scores = sensitivities(backbone, config, context)
    if config.method == "deterministic":
        return masked_copy(backbone, keep_by_scores(backbone, ratio, scores, "global"))
    draws = {
        name: torch.empty(score.shape, dtype=torch.float64).exponential_(generator=context.generator).to(score.device)
        for name, score in scores.items()
    }
    return _sampled(backbone, ratio, scores, draws)


def sensitivities(backbone: Backbone, config: Config, context: Context) -> dict[str, Float[Tensor, "..."]]:
    """Return the sensitivity of every prunable weight, in [0, 1].

    Args:
        backbone: the network; it is evaluated.
        config: options.
        context: validation images.
    """
    images = context.sensitivity_set(config.examples)
    network = written_out(backbone).eval()
    found = {name: _Sensitivity(layer) for name, layer in layer_twins(backbone).items()}
    for name, sensitivity in found.items():
        network.get_submodule(name).register_forward_pre_hook(sensitivity)
    with torch.no_grad():
        for some, _ in batches(network, images):
            network(some)
    check_called(name for name, sensitivity in found.items() if not sensitivity.called)
    return {name: sensitivity.values for name, sensitivity in found.items()}


class _Sensitivity:
    """A forward pre-hook that keeps the largest shares of a layer's weights in what its units get.

    Args:
        layer: a twin without this hook.

    Attributes:
        values: in the weight's shape.
        called: whether the layer has been.
    """

    def __init__(self, layer: Layer) -> None:
        self.layer, self.called = layer, False
        self.values = torch.zeros_like(layer.weight, requires_grad=False)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        """Take the inputs of a batch into account."""
        self.called = True
        given, weight = inputs[0], self.layer.weight.detach()
        for positive in (given.clamp(min=0), given.neg().clamp(min=0)):
            # After a ReLU no input is negative.
            for part in (weight.clamp(min=0), weight.neg().clamp(min=0)) if positive.any() else ():
                self.values = self.values.maximum(part * self._mean_inverse(part, positive))

    def _mean_inverse(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return a_j / sum_k w_ik a_k, averaged over patches; its largest value over the examples."""
        values = {"weight": weight} | ({} if self.layer.bias is None else {"bias": torch.zeros_like(self.layer.bias)})
        sums: Tensor = torch.func.functional_call(self.layer, values, (inputs,))
        inverse = torch.where(sums > torch.finfo(sums.dtype).tiny, 1 / sums, 0)
        patches = inverse[0, ..., 0].numel() if isinstance(self.layer, nn.Linear) else inverse[0, 0].numel()
        # Correlating the inputs with the inverse sums is what the gradient of a layer's weight does.
        largest = [by_example.amax(0) for by_example in gradients_by_example(self.layer, inputs, inverse)]
        return torch.stack(largest).amax(0) / patches


def _sampled(
    backbone: Backbone, ratio: float, sensitivity: Mapping[str, Tensor], times: Mapping[str, Tensor]
) -> Backbone:
    """Keep the weights that are drawn first, each divided by its probability of being among them.

    Drawing with replacement in continuous time, a weight of sensitivity s is first drawn after a time that is
    exponential with rate s. Given the time t at which the first weight that is not kept comes, a weight is kept with
    probability 1 - exp(-s t): dividing by it makes the estimate unbiased.

    Args:
        backbone: the network.
        ratio: compression ratio over all parameters.
        sensitivity: of every prunable weight.
        times: exponential with rate 1, for every prunable weight.
    """
    rates = {name: value.double() / times[name] for name, value in sensitivity.items()}
    keep, before = keep_by_scores(backbone, ratio, rates, "global"), kept(backbone)
    gone = [rates[name][before[name] & ~keep[name]] for name in rates]
    next_rate = torch.cat([torch.zeros(1, dtype=torch.float64, device=gone[0].device), *gone]).max()
    pruned = masked_copy(backbone, keep)
    for name, layer in prunable(pruned).items():
        # Where no removed weight has any sensitivity, 1 / next_rate is infinite and every weight is certain.
        factor = 1 / -torch.expm1(-sensitivity[name].double() / next_rate)
        layer.weight.data = torch.where(keep[name] & (next_rate > 0), layer.weight * factor, layer.weight).to(
            layer.weight
        )
    return pruned
