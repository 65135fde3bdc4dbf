"""Tuples of instances that share a label: disjoint within a partition, shuffled, weighted by the prior."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sharedlabel.data._shuffle import joint_cells, rank_within, shuffle_within
from sharedlabel.errors import DataError
from sharedlabel.types import Tuples


def prior(labels: Int64[Tensor, "N"], kind: Literal["uniform", "empirical"], classes: int) -> Float64[Tensor, "c"]:
    """Return the prior over labels from which tuples draw their class.

    Args:
        labels: labels of the instances.
        kind: `uniform`, or `empirical` for the shares of the classes among the labels.
        classes: number of classes `c`.

    Returns:
        Probabilities that sum to 1.

    >>> prior(torch.tensor([0, 0, 0, 1]), "empirical", 2).tolist()
    [0.75, 0.25]
    """
    if kind == "uniform":
        return torch.full((classes,), 1 / classes, dtype=torch.float64)
    return torch.bincount(labels, minlength=classes).double() / labels.numel()


def partition(
    labels: Int64[Tensor, "N"],
    n: int,
    partitions: int,
    prior: Float[Tensor, "c"],
    generator: torch.Generator,
    groups: Int64[Tensor, "N"] | None = None,
    class_names: tuple[str, ...] | None = None,
) -> Tuples:
    """Shuffle each class's instances and cut them into disjoint n-tuples, once per partition.

    A class whose size is not a multiple of `n` leaves a remainder, another one in every partition; a group smaller
    than `n` has no tuple. The order of the tuples is random too, so that a tuple's position does not give its label
    away.

    Args:
        labels: labels of the instances.
        n: instances per tuple.
        partitions: number of independent partitions.
        prior: probability of each class; the tuples of a class together weigh as much.
        generator: source of the randomness.
        groups: group of each instance for the grouped protocol: tuples stay within one class and group. None for iid.
        class_names: names for error messages; class indices by default.

    Returns:
        Tuples whose indices are positions in `labels`.

    Raises:
        DataError: `n` or `partitions` below 1, a label outside the prior, or a class with fewer than `n` instances, or
            without a group of so many.
    """
    _check(labels, n, partitions, prior.numel(), groups, class_names)
    cells = labels if groups is None else joint_cells(labels, groups)
    sizes = torch.bincount(cells)
    # All rows list the cells in the same order, so one mask cuts the remainders off every partition.
    kept = rank_within(sizes) < (sizes // n * n).repeat_interleave(sizes)
    indices = shuffle_within(cells, partitions, generator)[:, kept].reshape(partitions, -1, n)  # [p, t, n]
    order = torch.rand(indices.shape[:2], generator=generator).argsort(dim=1)
    indices = indices.gather(1, order[:, :, None].expand(-1, -1, n))
    tuple_labels = labels[indices[:, :, 0]]
    counts = torch.bincount(tuple_labels[0], minlength=prior.numel())
    return Tuples(indices, tuple_labels, (prior / counts)[tuple_labels])


def check(drawn: Tuples, labels: Int64[Tensor, "N"]) -> None:
    """Refuse tuples that are not what they say: instances that share one label, none of them twice.

    Args:
        drawn: tuples, whose indices are positions in `labels`.
        labels: labels of the instances.

    Raises:
        DataError: a tuple without instances, an index outside the split, a tuple of mixed labels or of another label
            than stated, or one that holds an instance twice.
    """
    indices = drawn.indices
    if indices.shape[2] == 0:
        raise DataError("expected at least one instance in every tuple, got n = 0; use n >= 1")
    if indices.numel() and not 0 <= int(indices.min()) <= int(indices.max()) < len(labels):
        raise DataError(
            f"expected indices from 0 to {len(labels) - 1}, got {int(indices.min())} to {int(indices.max())}; "
            "they are positions in the split"
        )
    own = labels[indices]
    wrong = (own != drawn.labels[..., None]).any(-1).nonzero()
    if len(wrong):
        partition_, position = wrong[0].tolist()
        raise DataError(
            f"expected instances that share label {int(drawn.labels[partition_, position])}, got labels "
            f"{sorted(set(own[partition_, position].tolist()))} in tuple {position} of partition {partition_}; "
            "form tuples within one class"
        )
    ordered = indices.sort(-1).values
    twice = (ordered[..., 1:] == ordered[..., :-1]).any(-1).nonzero()
    if len(twice):
        partition_, position = twice[0].tolist()
        raise DataError(
            f"expected no instance twice in a tuple, got {indices[partition_, position].tolist()} in tuple {position} "
            f"of partition {partition_}; draw without replacement"
        )


def _check(
    labels: Tensor, n: int, partitions: int, classes: int, groups: Tensor | None, class_names: tuple[str, ...] | None
) -> None:
    if n < 1 or partitions < 1:
        raise DataError(f"expected n >= 1 and partitions >= 1, got n = {n} and partitions = {partitions}; raise them")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"expected labels from 0 to {classes - 1}, got {int(labels.min())} to {int(labels.max())}; "
            "the prior needs one entry per class"
        )
    names = class_names or tuple(str(index) for index in range(classes))
    size, label = torch.bincount(labels, minlength=classes).min(0)
    if size < n:
        raise DataError(_too_small(f"class {names[int(label)]!r}", int(size), n))
    if groups is not None:
        size, label = largest(labels, groups, classes).min(0)
        if size < n:
            raise DataError(_too_small(f"the largest group of class {names[int(label)]!r}", int(size), n))


def largest(labels: Int64[Tensor, "N"], groups: Int64[Tensor, "N"] | None, classes: int) -> Int64[Tensor, "c"]:
    """Return the most instances of each class that a tuple can have: of one of its groups, if there are groups."""
    if groups is None:
        return torch.bincount(labels, minlength=classes)
    cells, sizes = torch.unique(torch.stack([labels, groups]), dim=1, return_counts=True)
    return torch.zeros(classes, dtype=torch.int64).scatter_reduce_(0, cells[0], sizes, "amax")


def _too_small(what: str, size: int, n: int) -> str:
    remedy = f"use n <= {size} or add instances" if size else "add instances"
    return f"expected at least n = {n} instances, got {size} in {what}; {remedy}"
