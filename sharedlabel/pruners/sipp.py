"""SiPP removes the weights that contribute least to the inputs of any unit, on any of a few images.

    pruners: [{name: sipp, examples: 64}]

The sensitivity of a weight w_ij, on inputs a that are not negative, is its share w_ij a_j / sum_k w_ik a_k in what unit
i gets, and of that the largest value over the images. Of the patches of a convolution it is the mean for the
deterministic method and the maximum for the randomised one, as in the authors' code (torchprune, `sipp_tracker.py`);
the positions that a linear layer is applied to count as images. Positive and negative weights are taken apart, so that
shares lie in [0, 1]; so are positive and negative inputs, which normalised images have: they count as two images.

Unlike the authors' code, which gives each unit and sign a number of draws by a convex programme that minimises the sum
of their error bounds, the randomised method draws from all weights together. That gives each unit and sign draws in
proportion to the sum of its sensitivities, with which the bound is the same for all; and it keeps the exact number of
weights. Their third method, which chooses between the two by unit, is left out.

References: Baykal, Liebenwein, Gilitschenski, Feldman & Rus, "SiPPing Neural Networks: Sensitivity-informed Provable
Pruning of Neural Networks" (2019). Sampling: Cohen & Kaplan, "Summarizing Data using Bottom-k Sketches" (2007).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.schema import Count
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._activations import patches
from sharedlabel.pruners._attention import layer_twins, written_out
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._examples import batches
from sharedlabel.pruners._gradients import check_called, gradients_by_example
from sharedlabel.pruners._masks import Layer, kept, masked_copy, prunable, removed, weights_to_remove
from sharedlabel.pruners._scores import check_scores, keep_by_scores, magnitudes, prune_by_scores

STRUCTURED = False
NESTED = True
NEEDS = frozenset({"validation"})

_IMAGES = 16  # whose patches are in memory together
_ELEMENTS = 2**19  # shares computed at once; few stay in the cache


@dataclass(frozen=True)
class Config:
    """Options of SiPP.

    Args:
        method: `deterministic` keeps the weights of highest sensitivity, all layers together; `randomized` draws the
            weights with probabilities proportional to their sensitivities, with replacement, until the number to keep
            has been drawn, and divides each by its probability of being among them, so that every layer's output is
            right on average.
        examples: validation images that sensitivities are measured on. The authors' code takes 3 log(8 n N / delta), n
            the outputs of the largest layer, N of all, delta = 1e-16: 152 for LeNet-300-100, 183 for ResNet-20 on 32 x
            32 pixels. Here a round number near them.
    """

    method: Literal["deterministic", "randomized"] = "deterministic"
    examples: Count = 128


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Mask the weights of smallest sensitivity, or those that sampling by sensitivity leaves out.

    Args:
        backbone: the network, trained.
        ratio: compression ratio over all parameters.
        config: options.
        context: validation images; its generator draws for `randomized`.

    Raises:
        CompressionError: the ratio cannot be reached, images are missing, a layer is not called or is a transposed
            convolution that is to be drawn from, or weights are not finite.
    """
    if config.method == "deterministic":
        return prune_by_scores(backbone, ratio, lambda: sensitivities(backbone, config, context), "global")
    if weights_to_remove(backbone, ratio) == removed(backbone):
        return masked_copy(backbone, kept(backbone))
    scores = sensitivities(backbone, config, context)
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
    check_scores(magnitudes(backbone))
    images = context.sensitivity_set(config.examples)
    network = written_out(backbone).eval()
    kind = _Sensitivity if config.method == "deterministic" else _LargestSensitivity
    trackers = {name: kind(name, layer) for name, layer in layer_twins(backbone).items()}
    for name, sensitivity in trackers.items():
        network.get_submodule(name).register_forward_pre_hook(sensitivity)
    with torch.no_grad():
        for some, _ in batches(network, images):
            network(some)
    check_called(name for name, sensitivity in trackers.items() if not sensitivity.called)
    return {name: sensitivity.values for name, sensitivity in trackers.items()}


class _Sensitivity:
    """A forward pre-hook that keeps the largest shares of a layer's weights in what its units get.

    Args:
        name: of the layer.
        layer: a twin without this hook.

    Attributes:
        values: in the weight's shape.
        called: whether the layer has been.
    """

    def __init__(self, name: str, layer: Layer) -> None:
        self.name, self.layer, self.called = name, layer, False
        self.values = torch.zeros_like(layer.weight, requires_grad=False)

    def __call__(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        """Take the inputs of a batch into account."""
        self.called = True
        given, weight = inputs[0], self.layer.weight.detach()
        given = given.flatten(0, -2) if isinstance(self.layer, nn.Linear) else given
        for positive in (given.clamp(min=0), given.neg().clamp(min=0)):
            # After a ReLU no input is negative.
            for part in (weight.clamp(min=0), weight.neg().clamp(min=0)) if positive.any() else ():
                self.values = self.values.maximum(part * self._shares(part, positive))

    def _shares(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return a_j / sum_k w_ik a_k, the largest value over the examples."""
        if isinstance(self.layer, nn.Linear):
            return _largest(inputs.T[None], self._inverse(weight, inputs).T[None])[0]
        return self._of_patches(weight, inputs)

    def _of_patches(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return the largest value over the examples of the mean over patches."""
        inverse = self._inverse(weight, inputs)
        # Correlating the inputs with the inverse sums is what the gradient of a layer's weight does.
        largest = [by_example.amax(0) for by_example in gradients_by_example(self.layer, inputs, inverse)]
        return torch.stack(largest).amax(0) / inverse[0, 0].numel()

    def _inverse(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return 1 / sum_k w_ik a_k, 0 where there is nothing to divide.

        The authors take every sum up to 1e-7 for nothing; then it would matter how a unit's weights are scaled.
        """
        values = {"weight": weight} | ({} if self.layer.bias is None else {"bias": torch.zeros_like(self.layer.bias)})
        sums: Tensor = torch.func.functional_call(self.layer, values, (inputs,))
        return torch.where(sums > torch.finfo(sums.dtype).tiny, 1 / sums, 0)


class _LargestSensitivity(_Sensitivity):
    """A forward pre-hook that keeps the largest shares over patches, too."""

    def _of_patches(self, weight: Tensor, inputs: Tensor) -> Tensor:
        """Return the largest value over the examples and patches."""
        assert isinstance(self.layer, _ConvNd)
        if self.layer.transposed:
            raise CompressionError(
                f"expected linear layers and convolutions, got {self.name!r}, a transposed convolution, which has no "
                "patches to take shares in; use method deterministic, or another pruner"
            )
        largest = torch.zeros(())
        for some in inputs.split(_IMAGES):
            inverse = self._inverse(weight, some).flatten(2).unflatten(1, (self.layer.groups, -1))
            places = (patches(self.layer, some), inverse)
            shares = _largest(*(of_all.movedim(0, 2).flatten(2) for of_all in places))
            largest = largest.to(shares).maximum(shares.view_as(weight))
        return largest


def _largest(inputs: Float[Tensor, "groups q p"], inverse: Float[Tensor, "groups o p"]) -> Float[Tensor, "groups o q"]:
    """Return the largest products of an input and an inverse sum over p places.

    >>> _largest(torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, 1.0], [1.0, 4.0]]]))
    tensor([[[3.],
             [8.]]])
    """
    step = max(1, _ELEMENTS // (inputs[..., 0].numel() * inverse.shape[1]))
    largest = inputs.new_zeros(*inverse.shape[:2], inputs.shape[1])
    for values, sums in zip(inputs.split(step, -1), inverse.split(step, -1), strict=True):
        torch.maximum(largest, (sums[:, :, None] * values[:, None]).amax(-1), out=largest)
    return largest


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
