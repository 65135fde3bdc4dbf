"""The variance of a mean over tuples, and what each instance or group adds to it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.types import Tuples

# Near saturation the split of a variance into its two parts is a difference of noisy numbers, and may come out at zero
# or below, which is no reason to be certain. So a variance is at least this share of the squared influences, less what
# tuples add to them by chance: with it two methods that are alike and 90 to 99.9% right get p < .05 in at most 5.5% of
# repetitions, for 45 to 200 images a class, n = 1 to 16 and 1 to 20 partitions (`python -m benchmarks.error_rates`).
FLOOR = 0.75


class Centered(NamedTuple):
    """Scores split into class means and deviations from them.

    Attributes:
        mean: mean score, each class weighing its prior.
        deviation: score minus the mean of its class.
        weights: weight of each tuple, all together 1; a column for all k where tuples have one size.
        prior: total weight of each class.
    """

    mean: Float[Tensor, "k"]
    deviation: Float[Tensor, "p t k"]
    weights: Float[Tensor, "p t #k"]
    prior: Float[Tensor, "c"]


def sum_by(index: Int64[Tensor, "r"], values: Float[Tensor, "r k"], size: int) -> Float[Tensor, "size k"]:
    """Sum rows that share an index."""
    return values.new_zeros(size, values.shape[1]).index_add_(0, index, values)


def center(scores: Float[Tensor, "p t k"], tuples: Tuples, weights: Float[Tensor, "p t #k"]) -> Centered:
    """Split scores into class means and deviations, in float64.

    Args:
        scores: of tuples.
        tuples: these.
        weights: of each of them, all together 1.
    """
    classes = int(tuples.labels.max()) + 1
    label, weight, flat = tuples.labels.flatten(), weights.flatten(0, 1), scores.double().flatten(0, 1)
    prior = sum_by(label, weight, classes)
    means = sum_by(label, weight * flat, classes) / prior.where(prior > 0, 1.0)
    return Centered(prior[:, 0] @ means, (flat - means[label]).view(scores.shape), weights, prior[:, 0])


class _Sums(NamedTuple):
    """Per instance: its class, and sums over the partitions that hold it within each prefix."""

    owner: Int64[Tensor, "N"]
    total: Float[Tensor, "N k"]
    squares: Float[Tensor, "N k"]
    times: Float[Tensor, "N k"]


def _instance_sums(deviation: Float[Tensor, "p t k"], tuples: Tuples, prefixes: Float[Tensor, "k"], size: int) -> _Sums:
    width = tuples.indices.shape[2]
    used = (torch.arange(width, device=prefixes.device)[:, None] < prefixes).double()  # [n, k]
    at, spread = tuples.indices.flatten(), deviation[:, :, None] * used
    owner = torch.full((size,), -1, dtype=torch.int64, device=at.device)
    owner[at] = tuples.labels.flatten().repeat_interleave(width)
    total, squares = sum_by(at, spread.flatten(0, 2), size), sum_by(at, spread.square().flatten(0, 2), size)
    return _Sums(owner, total, squares, sum_by(at, used.expand_as(spread).flatten(0, 2), size))


def over_instances(
    centered: Centered, tuples: Tuples, prefixes: Float[Tensor, "k"], instances: int
) -> tuple[Float[Tensor, "k"], Float[Tensor, "N k"], Float[Tensor, "k"]]:
    """Return the variance of the mean over fresh instances, the raw influence of each instance, and the freedom.

    The degrees of freedom are those of disjoint tuples of each length: exact for one partition, careful for more.

    The variance is never below the floor that the influences set (`floor_share`).

    Raises:
        DataError: a label has a single tuple, so its spread cannot be seen.
    """
    classes, partitions = len(centered.prior), len(tuples.labels)
    drawn = torch.bincount(tuples.labels.flatten(), minlength=classes).double()[:, None]  # tuples of each class
    if bool((drawn == 1).any()):
        label = int((drawn == 1).nonzero()[0, 0])
        raise DataError(f"expected two tuples or more of each label, got one of label {label}; add data or partitions")
    sums = _instance_sums(centered.deviation, tuples, prefixes, instances)
    seen = sums.owner >= 0
    owner = sums.owner.clamp(min=0)
    size = sum_by(owner, seen.double()[:, None], classes).clamp(min=1)  # instances of each class

    pairs = sum_by(owner, sums.times * (sums.times - 1), classes)
    zeta = sum_by(owner, sums.total.square() - sums.squares, classes) / pairs.clamp(min=1)
    # Deviations from the sample's own mean shrink the effect of an instance by (M - n) / (M - 1).
    zeta = zeta * size * (size - 1) / (size - prefixes).clamp(min=1).square()
    shared = (1 - 1 / partitions) * prefixes.square() / size * zeta
    # That mean is itself uncertain: sigma^2 = mean(d^2) + variance, solved for the variance.
    squares = sum_by(tuples.labels.flatten(), centered.deviation.square().flatten(0, 1), classes)
    own = squares / drawn.clamp(min=1).square()
    per_class = (shared + own) / (1 - 1 / drawn.clamp(min=2))
    influence = centered.prior[owner, None] * prefixes / size[owner] * sums.total / sums.times.clamp(min=1)
    lowest = floor_share(prefixes, partitions) * influence.square().sum(dim=0)
    variance = torch.maximum(centered.prior.square() @ per_class, lowest)
    freedom = ((size / prefixes - 1).clamp(min=0) * (drawn > 0)).sum(dim=0).clamp(min=1)
    return variance, influence, freedom


def floor_share(prefixes: Float[Tensor, "k"], partitions: int) -> Float[Tensor, "k"]:
    """Return the share of the summed squared influences that a variance is at least.

    An influence averages over the tuples that hold an image, at most one per partition, and what the other instances
    of these add to its square is n - 1 times the variance of interest over the number of partitions, for scores that
    add up over instances.
    """
    return FLOOR / (1 + (prefixes - 1) / partitions)


def over_clusters(
    centered: Centered, tuples: Tuples, clusters: Int64[Tensor, "N"]
) -> tuple[Float[Tensor, "k"], Float[Tensor, "G k"], Float[Tensor, "#k"]]:
    """Return the variance of the mean over fresh groups, the influence of each group, and the degrees of freedom.

    A group's sum within a class is divided by sqrt(1 - its share of the class): that is the G / (G - 1) correction
    when groups span all classes, and G_c / (G_c - 1) per class when each group lies in one. A class with one group
    is taken to vary as the others do.

    Raises:
        DataError: a tuple spans two groups, or no label has two groups.
    """
    members = clusters[tuples.indices]
    if bool((members != members[:, :, :1]).any()):
        raise DataError("expected every tuple inside one group, got tuples that span groups; cut tuples inside groups")
    names, group = torch.unique(clusters, return_inverse=True)
    classes, groups = len(centered.prior), len(names)
    cell = group[tuples.indices[:, :, 0]].flatten() * classes + tuples.labels.flatten()
    weights, square = centered.weights.flatten(0, 1), centered.prior.square()[:, None]
    mass = sum_by(cell, weights, groups * classes).view(groups, classes, -1)
    share = mass / centered.prior.where(centered.prior > 0, 1.0)[:, None]  # [G, c, #k]
    several = (share > 0).sum(dim=0) > 1
    if not bool(several.any(dim=0).all()):
        raise DataError("expected two groups or more of at least one label, got one of each; add groups or use `iid`")
    pieces = sum_by(cell, weights * centered.deviation.flatten(0, 1), groups * classes).view(groups, classes, -1)
    left = torch.where(several, 1 - share, 1.0)
    unseen = square.sum(dim=0) / (square * several).sum(dim=0)
    influence = (pieces * several / left.sqrt()).sum(dim=1) * unseen.sqrt()
    held, nested = (share > 0).any(dim=0).sum(dim=0), ((share > 0).sum(dim=1) <= 1).all(dim=0)
    freedom = (share > 0).any(dim=1).sum(dim=0) - torch.where(nested, held, 1)
    return influence.square().sum(dim=0), influence, freedom.double()
