"""Tuple weights: normalised, in float64; and how many independent tuples a set of them is worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn

from sharedlabel.metrics import _checks
from sharedlabel.types import Tuples


def normalized(labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None) -> Float[Tensor, "t"]:
    """Return weights that sum to 1; equal ones when none are given.

    Raises:
        DataError: there are no tuples, or their weights mean nothing.
    """
    _checks.tensor("labels", labels, "t")
    count = labels.numel()
    _checks.weights(weights, count)
    _checks.mean(count, float(count if weights is None else weights.sum()))
    if weights is None:
        return torch.full(labels.shape, 1 / count, dtype=torch.float64, device=labels.device)
    wide = weights.double()
    return wide / wide.sum()


def weighted_mean(values: Shaped[Tensor, "t n"], weights: Float[Tensor, "t"]) -> Float[Tensor, "n"]:
    """Return the mean over tuples under normalised weights."""
    return weights @ values.double()


def evenness(weights: Float[Tensor, "m"]) -> float:
    """Return the share of units that would say as much if all weighed alike: 1 for equal weights.

    Reference:
        Kish, "Survey Sampling" (1965), on the effective sample size.
    """
    wide = weights.double()
    return float(wide.sum().square() / wide.square().sum() / len(wide))


def weights_at(tuples: Tuples, sizes: Sequence[int | float]) -> Float64[Tensor, "p t #k"]:
    """Return the weight of every tuple after each number of instances, all together 1.

    Where tuples are ragged, those that do not have so many weigh nothing, and each class weighs as much as in all. One
    column stands for all numbers where tuples have one size.

    Args:
        tuples: of any sizes.
        sizes: numbers of instances.
    """
    if tuples.lengths is None:
        wide = tuples.weights.double()[..., None]
        return wide / wide.sum()
    parts = []
    for size in sizes:
        own = tuples.reaching(math.ceil(size)).weights.double()
        parts.append(nn.functional.pad(own / own.sum(), (0, tuples.labels.shape[1] - own.shape[1])))
    return torch.stack(parts, dim=2)


def mean_of(values: Float[Tensor, "*m p t k"], weights: Float[Tensor, "p t #k"]) -> Float[Tensor, "*m k"]:
    """Return the mean over tuples under weights that are all together 1 (`weights_at`)."""
    if weights.shape[2] == 1:
        return torch.einsum("pt,...ptk->...k", weights[..., 0], values)
    return torch.einsum("ptk,...ptk->...k", weights, values)


def independent_tuples(
    tuples: Tuples, sizes: Sequence[int], clusters: Int64[Tensor, "N"] | None = None
) -> Float64[Tensor, "k"]:
    """Return how many independent tuples of each size the given ones are worth, however many partitions there are.

    That is the number of distinct instances within the first n, divided by n; groups count once in every class.

    Args:
        tuples: disjoint within a partition.
        sizes: n of each.
        clusters: group of each instance, for tuples cut inside groups; None for instances drawn independently.
    """
    worth = []
    for size in sizes:
        own = tuples.reaching(size)
        count = len(own.indices[:, :, :size].unique()) / size
        if clusters is not None:
            cells = torch.stack([clusters[own.indices[:, :, 0]].flatten(), own.labels.flatten()]).unique(dim=1)
            count = min(count, cells.shape[1])
        worth.append(count * evenness(own.weights.flatten()))
    return torch.tensor(worth, dtype=torch.float64)


def independent_groups(tuples: Tuples, clusters: Int64[Tensor, "N"]) -> float:
    """Return how many groups of equal weight tuples that were cut inside groups are worth."""
    names, group = clusters[tuples.indices[:, :, 0]].flatten().unique(return_inverse=True)
    mass = torch.zeros(len(names), dtype=torch.float64).index_add_(0, group, tuples.weights.flatten().double())
    return len(names) * evenness(mass)
