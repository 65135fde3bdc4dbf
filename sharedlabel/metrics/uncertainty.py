"""Intervals over instances (or groups of them), not over tuples: tuples share instances.

Resampling tuples as if they were independent gives intervals that are far too narrow. Here the variance is that of a
mean over random partitions of fresh instances: a U-statistic of which P random partitions are seen,

    SE^2 = sum_c prior_c^2 [(1 - 1/P) n^2 / M_c * zeta_c + sigma_c^2 / (T_c P)],

with M_c instances and T_c tuples per partition in class c, zeta_c the covariance of the scores of two tuples that share
one instance, and sigma_c^2 the variance of one score (Hoeffding 1948; the split into both parts is ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.metrics import _quantiles
from sharedlabel.types import Tuples


@dataclass(frozen=True)
class Estimate:
    """A mean score for each prefix length, with its uncertainty over fresh instances.

    Attributes:
        mean: mean score.
        se: standard error.
        degrees_of_freedom: of the standard error; `inf` for instances.
        influence: what each unit (instance or group, then training seed) adds to the mean when it is reweighed; the
            squares sum to se^2. Units of equal data and seeds line up, so bootstraps over them stay paired.
    """

    mean: Float[Tensor, "k"]
    se: Float[Tensor, "k"]
    degrees_of_freedom: Float[Tensor, "k"]
    influence: Float[Tensor, "units k"]


@dataclass(frozen=True)
class Difference:
    """A paired difference of two methods for each prefix length.

    Attributes:
        estimate: first minus second, with its uncertainty.
        p_value: two-sided, of no difference.
    """

    estimate: Estimate
    p_value: Float[Tensor, "k"]


def _sum_by(index: Int64[Tensor, "r"], values: Float[Tensor, "r k"], size: int) -> Float[Tensor, "size k"]:
    return values.new_zeros(size, values.shape[1]).index_add_(0, index, values)


def _centered(
    scores: Float[Tensor, "p t k"], tuples: Tuples
) -> tuple[Float[Tensor, "k"], Float[Tensor, "p t k"], Float[Tensor, "c"]]:
    """Return the mean, the deviations from the class means, and the total weight of each class."""
    classes = int(tuples.labels.max()) + 1
    weights = tuples.weights.double() / tuples.weights.double().sum()
    label, weight = tuples.labels.flatten(), weights.reshape(-1, 1)
    flat = scores.double().flatten(0, 1)
    prior = _sum_by(label, weight, classes)
    means = _sum_by(label, weight * flat, classes) / prior.clamp(min=1e-300)
    return prior[:, 0] @ means, (flat - means[label]).view(scores.shape), prior[:, 0]


def _per_class(
    deviation: Float[Tensor, "p t k"], tuples: Tuples, prefixes: Float[Tensor, "k"], instances: int, classes: int
) -> tuple[Float[Tensor, "c k"], Float[Tensor, "N k"]]:
    """Return the variance of each class's mean and the raw influence of each instance on it."""
    partitions, _, width = tuples.indices.shape
    used = (torch.arange(width, device=prefixes.device)[:, None] < prefixes).double()  # [n, k]
    spread = deviation[:, :, None] * used
    at = tuples.indices.flatten()
    total = _sum_by(at, spread.flatten(0, 2), instances)
    squares = _sum_by(at, spread.square().flatten(0, 2), instances)
    count = _sum_by(at, used.expand(*tuples.indices.shape, -1).flatten(0, 2), instances)

    label = tuples.labels.flatten()
    owner = torch.zeros(instances, dtype=torch.int64, device=at.device)
    owner[at] = label.repeat_interleave(width)
    seen = torch.zeros(instances, 1, dtype=torch.float64, device=at.device)
    seen[at] = 1
    size = _sum_by(owner, seen, classes)  # instances of each class, [c, 1]
    drawn = _sum_by(label, torch.ones_like(label[:, None], dtype=torch.float64), classes)  # its tuples, [c, 1]

    pairs = _sum_by(owner, count * (count - 1), classes).clamp(min=1)
    zeta = _sum_by(owner, total.square() - squares, classes) / pairs
    # Deviations from the finite sample's own mean shrink a main effect by (M - n) / (M - 1).
    zeta = zeta * size * (size - 1) / (size - prefixes).clamp(min=1).square()
    shared = (1 - 1 / partitions) * prefixes.square() / size.clamp(min=1) * zeta
    # The mean that deviations are taken from is itself uncertain: sigma^2 = mean(d^2) + variance.
    own = _sum_by(label, deviation.square().flatten(0, 1), classes) / drawn.clamp(min=1)
    variance = (shared + own / drawn.clamp(min=1)) / (1 - 1 / drawn.clamp(min=2))
    return variance, prefixes / size[owner].clamp(min=1) * total / count.clamp(min=1)


def _over_instances(
    mean: Float[Tensor, "k"],
    deviation: Float[Tensor, "p t k"],
    prior: Float[Tensor, "c"],
    tuples: Tuples,
    prefixes: Float[Tensor, "k"],
    instances: int,
) -> Estimate:
    drawn = torch.bincount(tuples.labels.flatten(), minlength=len(prior))
    if bool(((drawn < 2) & (prior > 0)).any()):
        label = int(((drawn < 2) & (prior > 0)).nonzero()[0])
        raise DataError(f"expected two tuples or more of each label, got one of label {label}; lower n or add partitions")
    variance, raw = _per_class(deviation, tuples, prefixes, instances, len(prior))
    total = (prior.square() @ variance).clamp(min=0)
    owner = torch.zeros(instances, dtype=torch.int64, device=raw.device)
    owner[tuples.indices.flatten()] = tuples.labels.flatten().repeat_interleave(tuples.indices.shape[2])
    influence = _rescaled(raw * prior[owner, None], total)
    return Estimate(mean, total.sqrt(), torch.full_like(mean, torch.inf), influence)


def _rescaled(influence: Float[Tensor, "units k"], variance: Float[Tensor, "k"]) -> Float[Tensor, "units k"]:
    squares = influence.square().sum(dim=0)
    return influence * torch.where(squares > 0, variance / squares.where(squares > 0, 1.0), 0.0).sqrt()
