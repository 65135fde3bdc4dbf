"""All paired differences between many methods on the same tuples, from one matrix of covariances per prefix length.

The variance of `uncertainty.seed_average` is a quadratic form in the scores, here the differences of two methods'. So
Var(a - b) = V_aa + V_bb - 2 V_ab with one matrix V for all methods, and a few products of matrices stand for
m (m - 1) / 2 passes over all tuples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.metrics import _checks
from sharedlabel.metrics._variance import center, floor_share, over_clusters, over_instances, sum_by
from sharedlabel.metrics._weights import mean_of, weights_at
from sharedlabel.metrics.behrens_fisher import Spread
from sharedlabel.types import Tuples


@dataclass(frozen=True)
class Pairs:
    """Paired differences of every two methods for each prefix length.

    Attributes:
        difference: mean score of the method of the row minus that of the column.
        spread: its variance over images (or groups) and over training seeds.
    """

    difference: Float[Tensor, "m m k"]
    spread: Spread


def all_pairs(
    scores: Float[Tensor, "m s p t k"],
    tuples: Tuples,
    prefixes: Sequence[int],
    instances: int,
    clusters: Int64[Tensor, "N"] | None = None,
    average: Sequence[int] = (),
) -> Pairs:
    """Compare every two methods on identical tuples, by the differences of each tuple's scores.

    Args:
        scores: of every method under each training seed; the seeds of all methods correspond.
        tuples: the tuples that were scored; their weights give each class its prior.
        prefixes: the n of each column of `scores`.
        instances: number of instances in the split, N.
        clusters: group of each instance, for tuples cut inside groups; None for instances drawn independently.
        average: columns whose average is one more column, for ragged tuples, of which others count at each n: its
            variance is that of averaged influences, its degrees of freedom are the fewest. Needs clusters.

    Returns:
        For every pair what `uncertainty.seed_average` returns of the differences of their scores, up to rounding.

    Raises:
        DataError: too few tuples or groups, or tuples that span groups.
    """
    _checks.scores(scores, tuples, prefixes, instances, clusters, "m s p t k")
    # Differences stay the same without the mean method, and the rounding of V_aa + V_bb - 2 V_ab becomes small.
    apart = scores.double() - scores.double().mean(dim=0)
    averaged = apart.mean(dim=1)  # [m, p, t, k]
    weights = weights_at(tuples, prefixes)
    means = mean_of(apart, weights)
    if clusters is None:
        covariance, lowest, freedom = _over_instances(averaged, tuples, prefixes, instances)
    else:
        lowest = None
        covariance, freedom = _over_clusters(averaged, tuples, clusters, weights, average)
    of_images = _of_differences(covariance)
    if lowest is not None:
        of_images = torch.maximum(of_images, _of_differences(lowest))
    if average:
        means = torch.cat([means, means[..., list(average)].mean(-1, keepdim=True)], dim=-1)
    difference = means.mean(dim=1)[:, None] - means.mean(dim=1)
    seeds, of_seeds = scores.shape[1], torch.zeros_like(of_images)
    if seeds > 1:
        deviation = means - means.mean(dim=1, keepdim=True)
        of_seeds = _of_differences(torch.einsum("ask,bsk->abk", deviation, deviation) / (seeds * (seeds - 1)))
    seed_freedom = torch.full_like(of_seeds, max(seeds - 1, 1))
    return Pairs(difference, Spread(of_images, freedom.expand_as(of_images), of_seeds, seed_freedom))


def _of_differences(covariance: Float[Tensor, "m m k"]) -> Float[Tensor, "m m k"]:
    """Return the variances of all differences, which rounding may bring below 0."""
    own = covariance.diagonal().T  # [m, k]
    return (own[:, None] + own - 2 * covariance).clamp(min=0)


def _over_clusters(
    scores: Float[Tensor, "m p t k"],
    tuples: Tuples,
    clusters: Int64[Tensor, "N"],
    weights: Float[Tensor, "p t #k"],
    average: Sequence[int],
) -> tuple[Float[Tensor, "m m j"], Float[Tensor, "j"]]:
    """Return the covariances of the means over fresh groups, and of an average if asked for, and their freedom."""
    methods, _, _, columns = scores.shape
    of_all = weights if weights.shape[2] == 1 else weights.repeat(1, 1, methods)
    _, influence, freedom = over_clusters(center(_side_by_side(scores), tuples, of_all), tuples, clusters)
    pieces, freedom = influence.view(-1, methods, columns), freedom[:columns].expand(columns)
    if average:
        chosen = list(average)
        pieces = torch.cat([pieces, pieces[..., chosen].mean(-1, keepdim=True)], dim=-1)
        freedom = torch.cat([freedom, freedom[chosen].min()[None]])
    return torch.einsum("gak,gbk->abk", pieces, pieces), freedom


def _over_instances(
    scores: Float[Tensor, "m p t k"], tuples: Tuples, prefixes: Sequence[int], instances: int
) -> tuple[Float[Tensor, "m m k"], Float[Tensor, "m m k"], Float[Tensor, "k"]]:
    """Return the covariances of the means over fresh instances, what sets their floor, and their degrees of freedom.

    The formula is that of `over_instances`, with products of two methods' scores in place of squares.
    """
    methods, _, _, columns = scores.shape
    centered = center(_side_by_side(scores), tuples, weights_at(tuples, prefixes))
    deviation = centered.deviation.flatten(0, 1).view(-1, methods, columns)  # [pt, m, k]
    label = tuples.labels.flatten()
    sizes = torch.tensor(prefixes, dtype=torch.float64)
    # Degrees of freedom, and the check that no label has a single tuple, do not depend on the scores.
    _, _, freedom = over_instances(
        centered._replace(deviation=centered.deviation[:, :, :columns]), tuples, sizes, instances
    )
    covariance, lowest = (deviation.new_empty(methods, methods, columns) for _ in range(2))
    share = floor_share(sizes, len(tuples.labels))
    for size in dict.fromkeys(prefixes):
        own = torch.tensor([column for column, prefix in enumerate(prefixes) if prefix == size])
        per_instance, per_influence, per_tuple = _weights(centered.prior, tuples, size, instances)
        index = tuples.indices[:, :, :size].flatten()
        shares = deviation[:, :, own]  # [pt, m, j]
        total = sum_by(index, shares.flatten(1).repeat_interleave(size, dim=0), instances).view(instances, methods, -1)
        covariance[:, :, own] = _gram(total, per_instance) + _gram(shares, per_tuple[label])
        lowest[:, :, own] = _gram(total, per_influence) * share[own]
    return covariance, lowest, freedom


def _side_by_side(scores: Float[Tensor, "m p t k"]) -> Float[Tensor, "p t mk"]:
    return scores.permute(1, 2, 0, 3).flatten(2)


def _gram(values: Float[Tensor, "r m j"], weights: Float[Tensor, "r"]) -> Float[Tensor, "m m j"]:
    columns = values.permute(2, 1, 0)  # [j, m, r]
    return ((columns * weights) @ columns.mT).permute(1, 2, 0)


def _weights(
    prior: Float[Tensor, "c"], tuples: Tuples, size: int, instances: int
) -> tuple[Float[Tensor, "N"], Float[Tensor, "N"], Float[Tensor, "c"]]:
    """Return the weights of products of two methods.

    Of their sums at an instance, for the variance and for the squared influences; of their scores at a tuple, by label.
    """
    classes, partitions = len(prior), len(tuples.labels)
    width, at = tuples.indices.shape[2], tuples.indices.flatten()
    owner = torch.full((instances,), -1, dtype=torch.int64)
    owner[at] = tuples.labels.flatten().repeat_interleave(width)
    seen, owner = owner >= 0, owner.clamp(min=0)
    held = torch.bincount(tuples.indices[:, :, :size].flatten(), minlength=instances).double()
    members = torch.bincount(owner[seen], minlength=classes).double().clamp(min=1)
    drawn = torch.bincount(tuples.labels.flatten(), minlength=classes).double()
    pairs = sum_by(owner, (held * (held - 1))[:, None], classes)[:, 0].clamp(min=1)
    scale = prior.square() / (1 - 1 / drawn.clamp(min=2))
    small = members * (members - 1) / (members - size).clamp(min=1).square()
    shared = scale * (1 - 1 / partitions) * size**2 / members * small / pairs
    influence = (prior / members)[owner] * size / held.clamp(min=1)
    of_instances = torch.where(seen, shared[owner], 0.0), torch.where(seen, influence.square(), 0.0)
    return *of_instances, scale / drawn.clamp(min=1).square() - size * shared
