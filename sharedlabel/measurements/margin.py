"""How many weights of a layer can go before the output of a network moves by epsilon.

Three answers per layer, each for removing its smallest weights while the other layers stay as they are: a certificate,
which is a theorem about all inputs of bounded norm; what is observed on real inputs; and an asymptotic count.

Reference: after Qian & Klabjan, "A Probabilistic Approach to Neural Network Pruning" (2021).
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from jaxtyping import Float, Num
from torch import Tensor, nn
from torch.func import functional_call

from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._examples import check_examples
from sharedlabel.pruners._masks import parameter_name, prunable
from sharedlabel.pruners._scores import check_weights
from sharedlabel.pruners._select import keep_highest
from sharedlabel.records.measurements import LayerMargin

_BATCH = 512
# Elementwise, 1-Lipschitz and 0 at 0 in evaluation mode; LeakyReLU is too if its slope is at most 1.
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Tanh, nn.Softsign, nn.LeakyReLU)
_NEUTRAL = (nn.Identity, nn.Dropout, nn.Flatten)


def margins(
    backbone: Backbone,
    images: Num[Tensor, "b C H W"],
    epsilons: Iterable[float],
    alpha: float,
    device: torch.device | None = None,
) -> list[LayerMargin]:
    """Find the error margins of every prunable layer.

    Args:
        backbone: the dense network.
        images: real inputs, such as validation images.
        epsilons: allowed distances, as shares of the mean norm of the logits on these images.
        alpha: exponent of the asymptotic count, in (0, 1).
        device: where to run the network; None: where it is. Certificates are computed where the network is.

    Raises:
        CompressionError: there are no images, they do not fit the network, a weight, image or logit is not finite,
            there is no epsilon or one that is not positive and finite, or alpha is out of range.
    """
    epsilons = [float(epsilon) for epsilon in epsilons]
    _check(backbone, images, epsilons, alpha)
    network = copy.deepcopy(backbone).to(device or next(backbone.parameters()).device).eval()
    logits = _logits(network, images, {})
    if not logits.isfinite().all():
        raise CompressionError(
            "expected finite logits, got NaN or infinite ones on finite images: a parameter of the classifier or of "
            "normalisation is not finite, or activations overflow; train the network again"
        )
    scale, radius = float(logits.norm(dim=1).mean()), _radius(network, images)
    reason = refusal(backbone)
    layers = []
    for epsilon in epsilons:
        certified = {} if reason else certificate(backbone, epsilon * scale, radius)
        for name, place in prunable(network).items():
            key, size, sure = parameter_name(name, place), place.weight.numel(), certified.get(name)
            gap = _Gap(network, key, images, logits)
            seen = _largest(functools.partial(gap.within, epsilon * scale), size)
            sure_max, sure_mean = (None, None) if sure is None else gap(sure)
            seen_max, seen_mean = gap(seen)
            layers.append(
                LayerMargin(
                    layer=name,
                    weights=size,
                    epsilon=epsilon,
                    epsilon_absolute=epsilon * scale,
                    certified_weights=sure,
                    certified_gap_max=sure_max,
                    certified_gap_mean=sure_mean,
                    observed_weights=seen,
                    observed_gap_max=seen_max,
                    observed_gap_mean=seen_mean,
                    asymptotic_weights=asymptotic_count(size, alpha),
                    alpha=alpha,
                    inputs=len(images),
                    radius=radius,
                    refusal=reason,
                )
            )
    return layers


def _check(backbone: Backbone, images: Tensor, epsilons: Sequence[float], alpha: float) -> None:
    """Refuse what no margin could be stated for."""
    if not len(images):
        raise CompressionError("expected images to observe distances on, got an empty set; pass some")
    check_examples(backbone, images)
    check_weights(backbone)
    if not epsilons:
        raise CompressionError("expected at least one epsilon, got none; pass shares of the logits' norm, such as 0.1")
    for epsilon in epsilons:
        if not 0 < epsilon < math.inf:
            raise CompressionError(f"expected positive, finite epsilons, got {epsilon:g}; pass shares such as 0.1")
    if not 0 < alpha < 1:
        raise CompressionError(f"expected alpha in (0, 1), got {alpha:g}; 0.5 is usual")


def certificate(backbone: Backbone, epsilon: float, radius: float) -> dict[str, int]:
    """Count the smallest weights of every layer alone that can go while the theorem of `bound` gives at most epsilon.

    The count is found by bisection: the bound holds for it and fails for one weight more. It need not be the largest,
    since a removed weight more can make the spectral norm of what is removed smaller.

    Args:
        backbone: a chain of linear layers; see `refusal`.
        epsilon: allowed Euclidean distance of the logits.
        radius: largest norm of a normalised image.

    Returns:
        Counts by layer; the classifier is not pruned, but its norm counts.

    Raises:
        CompressionError: the theorem does not cover this network.
    """
    layers = _chain(backbone)
    names, weights = list(layers), [layer.weight.detach().double() for layer in layers.values()]
    norms = [_spectral(weight) for weight in weights]
    before = _input_norms(layers.values(), norms, radius)
    counts = {}
    for index, (name, weight) in enumerate(zip(names[:-1], weights[:-1], strict=True)):
        gain = before[index] * math.prod(norms[index + 1 :])
        counts[name] = _largest(functools.partial(_certified, weight, gain, epsilon), weight.numel())
    return counts


def bound(backbone: Backbone, pruned: Backbone, radius: float) -> float:
    """Bound the distance of two networks' logits over all normalised images x with |x| <= radius.

    Let f have the weights W_i, F the weights V_i, and both the biases b_i and 1-Lipschitz activations s with s(0) = 0.
    With a_i, A_i the activations of f and F behind layer i,

        |a_i - A_i| <= |(W_i a_{i-1} + b_i) - (V_i A_{i-1} + b_i)| <= |W_i| |a_{i-1} - A_{i-1}| + |W_i - V_i| |A_{i-1}|:

    the biases cancel in the difference. They do not in |A_{i-1}|, which enters as r_0 = radius, r_i = |V_i| r_{i-1} +
    |b_i| (at x = 0 the first layer passes on its bias). Unrolled, with spectral norms |.|:

        |f - F|(x) <= sum_i (prod_{j>i} |W_j|) |W_i - V_i| r_{i-1},

    and r_{i-1} = (prod_{j<i} |V_j|) |x| without biases, the form of Qian & Klabjan.

    Args:
        backbone: f, a chain of linear layers; see `refusal`.
        pruned: F, of the same layers and biases.
        radius: largest norm of a normalised image.

    Raises:
        CompressionError: the theorem does not cover these networks.
    """
    dense, changed = _chain(backbone), _chain(pruned)
    weights = [(dense[name].weight.detach().double(), changed[name].weight.detach().double()) for name in dense]
    reached = _input_norms(changed.values(), [_spectral(after) for _, after in weights], radius)
    gap = 0.0
    for (before, after), norm in zip(weights, reached, strict=True):
        gap = _spectral(before) * gap + _spectral(before - after) * norm
    return gap


def refusal(backbone: Backbone) -> str:
    """Say why the certificate's theorem does not cover a network; empty if it does."""
    try:
        _chain(backbone)
    except CompressionError as error:
        return str(error)
    return ""


def asymptotic_count(weights: int, alpha: float) -> int:
    """Return floor(D ** (1 - alpha)), the paper's count for a layer of D = rows * columns weights.

    It is an asymptotic statement: for random weights, and layers wide enough for the allowed distance, pruning this
    many leaves the output within it with high probability. For one given network it promises nothing.

    >>> asymptotic_count(262_144, 0.5)
    512
    """
    return int(weights ** (1 - alpha) + 1e-9)


def without_smallest(weight: Float[Tensor, "*shape"], count: int) -> Float[Tensor, "*shape"]:
    """Return a weight with its `count` smallest absolute values at zero; of equal ones the last go first."""
    keep = keep_highest(weight.abs().flatten(), weight.numel() - count)
    return weight * keep.view(weight.shape)


def _chain(backbone: Backbone) -> dict[str, nn.Linear]:
    """Return the linear layers by name, the classifier last, of a network that is nothing but a chain of them.

    Raises:
        CompressionError: it is more than that; names the module.
    """
    if not isinstance(backbone.body, nn.Sequential):
        raise _refused("body", backbone.body)
    layers: dict[str, nn.Linear] = {}
    flat = False
    for name, module in backbone.body.named_modules(prefix="body", remove_duplicate=False):
        flat = flat or (isinstance(module, nn.Flatten) and (module.start_dim, module.end_dim) == (1, -1))
        if type(module) is nn.Linear and flat and module not in layers.values():
            layers[name] = module
        elif type(module) not in (nn.Sequential, *_NEUTRAL, *_ACTIVATIONS) or abs(_slope(module)) > 1:
            raise _refused(name, module)
    return {**layers, "classifier": backbone.classifier}


def _refused(name: str, module: nn.Module) -> CompressionError:
    return CompressionError(
        "expected a chain of linear layers on flattened images with 1-Lipschitz activations "
        f"({', '.join(kind.__name__ for kind in _ACTIVATIONS)}), got {type(module).__name__} at {name!r}; "
        "read the observed counts instead"
    )


def _slope(module: nn.Module) -> float:
    return module.negative_slope if isinstance(module, nn.LeakyReLU) else 0.0


def _input_norms(layers: Iterable[nn.Linear], norms: Iterable[float], radius: float) -> list[float]:
    """Bound the norm of every layer's input."""
    reached = [radius]
    for layer, norm in zip(layers, norms, strict=True):
        bias = 0.0 if layer.bias is None else float(layer.bias.detach().double().norm())
        reached.append(norm * reached[-1] + bias)
    return reached[:-1]


def _spectral(matrix: Float[Tensor, "m n"]) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _certified(weight: Float[Tensor, "m n"], gain: float, epsilon: float, count: int) -> bool:
    """Tell whether gain times the spectral norm of what is removed is within epsilon; cheaper norms decide at times."""
    removed = weight - without_smallest(weight, count)
    if gain * float(removed.norm()) <= epsilon:
        return True
    longest = max(float(removed.norm(dim=axis).max()) for axis in (0, 1))
    return gain * longest <= epsilon and gain * _spectral(removed) <= epsilon


def _largest(holds: Callable[[int], bool], size: int) -> int:
    """Bisect for a count that holds while one more does not, or the size; zero holds by definition."""
    if holds(size):
        return size
    low, high = 0, size
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


class _Gap:
    """The largest and the mean distance of a network's logits when weights of one layer go."""

    def __init__(self, network: Backbone, key: str, images: Tensor, logits: Tensor) -> None:
        self.network, self.key, self.weight = network, key, network.get_parameter(key).detach()
        self.images, self.logits = images, logits

    def __call__(self, count: int) -> tuple[float, float]:
        """Observe the distances when the `count` smallest weights go."""
        changed = _logits(self.network, self.images, {self.key: without_smallest(self.weight, count)})
        gaps = (changed - self.logits).norm(dim=1)
        return float(gaps.max()), float(gaps.mean())

    def within(self, epsilon: float, count: int) -> bool:
        """Tell whether no observed distance exceeds epsilon."""
        return self(count)[0] <= epsilon


@torch.no_grad()
def _logits(network: Backbone, images: Tensor, changed: Mapping[str, Tensor]) -> Float[Tensor, "b c"]:
    device = next(network.parameters()).device
    batches = (part.to(device) for part in images.split(_BATCH))
    return torch.cat([functional_call(network, dict(changed), (batch,)).cpu() for batch in batches]).double()


@torch.no_grad()
def _radius(network: Backbone, images: Tensor) -> float:
    device = next(network.parameters()).device
    parts = (network.normalize(part.to(device)).cpu().double() for part in images.split(_BATCH))
    return max(float(part.flatten(1).norm(dim=1).max()) for part in parts)
