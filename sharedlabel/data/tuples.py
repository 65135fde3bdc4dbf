"""Tuples of instances that share a label: disjoint within a partition, weighted by the prior.

They are shuffled, or consecutive instances of a group in its own order (`sequences`).
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sharedlabel.config.names import IID, SEQUENCE
from sharedlabel.config.sections import Cut, EvaluationConfig
from sharedlabel.data._shuffle import joint_cells, rank_within, shuffle_within
from sharedlabel.errors import DataError
from sharedlabel.types import Tuples


@runtime_checkable
class Form(Protocol):
    """Forms tuples of instances: `partition`, `sequences`, or one of them with some arguments given."""

    def __call__(
        self,
        labels: Int64[Tensor, "N"],
        n: int,
        partitions: int,
        prior: Float[Tensor, "c"],
        generator: torch.Generator,
        groups: Int64[Tensor, "N"] | None = None,
        class_names: tuple[str, ...] | None = None,
        /,
    ) -> Tuples:
        """Return tuples of at most n instances; the arguments are those of `partition`."""


def asked(evaluation: EvaluationConfig, protocol: str) -> Cut:
    """Return how an evaluation wants groups to be cut under a protocol.

    >>> asked(EvaluationConfig(), "iid"), asked(EvaluationConfig(stride=2), "sequence")
    (Cut(short=False, start='first', stride=1), Cut(short=True, start='first', stride=2))
    """
    short = protocol != IID and evaluation.groups_smaller_than_n == "keep"
    return Cut(short, evaluation.start, evaluation.stride) if protocol == SEQUENCE else Cut(short)


def form(protocol: str, cut: Cut, positions: Float64[Tensor, "N"] | None = None) -> Form:
    """Return what forms tuples under a protocol.

    Args:
        protocol: `iid`, `grouped` or `sequence`.
        cut: what is asked for of it.
        positions: where in its group each instance stands, for `sequence`.
    """
    if protocol == SEQUENCE:
        return functools.partial(sequences, positions=positions, start=cut.start, stride=cut.stride, short=cut.short)
    return functools.partial(partition, short=cut.short)


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
    short: bool = False,
) -> Tuples:
    """Shuffle each class's instances and cut them into disjoint n-tuples, once per partition.

    A class whose size is not a multiple of `n` leaves a remainder, another one in every partition; a group smaller
    than `n` has no tuple. Unless `short` tuples are asked for, which these are. The order of the tuples is random too,
    so that a tuple's position does not give its label away.

    Args:
        labels: labels of the instances.
        n: instances per tuple.
        partitions: number of independent partitions.
        prior: probability of each class; the tuples of a class together weigh as much.
        generator: source of the randomness.
        groups: group of each instance for the grouped protocol: tuples stay within one class and group. None for iid.
        class_names: names for error messages; class indices by default.
        short: keep what is left of a class or group as a tuple of its size; tuples are ragged then, longest first.

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
    shuffled = shuffle_within(cells, partitions, generator)
    indices = shuffled[:, kept].reshape(partitions, -1, n)  # [p, t, n]
    rest = sizes % n
    if short and bool(rest.any()):
        rest = rest[rest > 0]
        left, first = shuffled[:, ~kept], rest.cumsum(0) - rest
        last = torch.minimum(torch.arange(n), rest[:, None] - 1)  # [cells, n]
        indices = torch.cat([indices, left[:, first[:, None] + last]], dim=1)
        lengths = torch.cat([torch.full((indices.shape[1] - len(rest),), n), rest])
        return _ordered(indices, lengths, labels, prior, generator)
    order = torch.rand(indices.shape[:2], generator=generator).argsort(dim=1)
    return _weighed(indices.gather(1, order[:, :, None].expand(-1, -1, n)), labels, prior)


def sequences(
    labels: Int64[Tensor, "N"],
    n: int,
    partitions: int,
    prior: Float[Tensor, "c"],
    generator: torch.Generator,
    groups: Int64[Tensor, "N"] | None,
    class_names: tuple[str, ...] | None = None,
    *,
    positions: Float64[Tensor, "N"] | None = None,
    start: Literal["first", "random"] = "first",
    stride: int = 1,
    short: bool = True,
) -> Tuples:
    """Take consecutive instances of every group in its own order: one tuple of each group and label in a partition.

    Args:
        labels: labels of the instances.
        n: most instances of a tuple.
        partitions: number of partitions; one where each begins with the first instance, since all would be alike.
        prior: probability of each class; the tuples of a class together weigh as much.
        generator: source of the randomness: of the starts, and of the order of the tuples.
        groups: group of each instance.
        class_names: names for error messages; class indices by default.
        positions: where in its group each instance stands; None for the order of the instances.
        start: begin with the `first` instance of the group, or anywhere at `random` where the tuple fits in.
        stride: take every so many-th instance.
        short: keep the tuples of groups that have fewer than `n` such instances; they are ragged then.

    Returns:
        Tuples whose indices are positions in `labels`.

    Raises:
        DataError: no groups, `n`, `stride` or `partitions` below 1, a label outside the prior, or a class without a
            group that has `n` instances at this stride.

    >>> labels, groups = torch.zeros(5, dtype=torch.int64), torch.tensor([0, 0, 0, 1, 1])
    >>> drawn = sequences(labels, 3, 1, torch.ones(1), torch.Generator(), groups)
    >>> drawn.indices.tolist(), drawn.lengths.tolist()
    ([[[0, 1, 2], [3, 4, 4]]], [3, 2])
    """
    if groups is None:
        raise DataError("expected groups, whose instances have an order, got none; pass the group of each instance")
    if stride < 1:
        raise DataError(f"expected a stride of at least 1, got {stride}; raise it")
    _check(labels, 1, partitions, prior.numel(), None, class_names)
    cells = joint_cells(labels, groups)
    order = torch.arange(len(labels)) if positions is None else positions.argsort(stable=True)
    order = order[cells[order].argsort(stable=True)]
    sizes = torch.bincount(cells)
    lengths = ((sizes - 1) // stride + 1).clamp(max=n)
    of_cell = labels[order[sizes.cumsum(0) - sizes]]
    _check_reach(lengths, of_cell, n, stride, prior.numel(), class_names)
    chosen = torch.ones_like(sizes, dtype=torch.bool) if short else lengths == n
    first, lengths, sizes = (sizes.cumsum(0) - sizes)[chosen], lengths[chosen], sizes[chosen]
    partitions = 1 if start == "first" else partitions
    room = sizes - (lengths - 1) * stride  # starts that leave room for the others
    drawn = torch.rand(partitions, len(room), generator=generator, dtype=torch.float64)
    begin = first + ((drawn * room).long() if start == "random" else torch.zeros_like(drawn, dtype=torch.int64))
    indices = order[begin[:, :, None] + stride * torch.minimum(torch.arange(n), lengths[:, None] - 1)]
    return _ordered(indices, lengths, labels, prior, generator)


def _ordered(indices: Tensor, lengths: Tensor, labels: Tensor, prior: Tensor, generator: torch.Generator) -> Tuples:
    """Put tuples in random order, the longest first, and weigh them."""
    order = (torch.rand(indices.shape[:2], generator=generator, dtype=torch.float64) - lengths).argsort(dim=1)
    drawn = _weighed(indices.gather(1, order[:, :, None].expand_as(indices)), labels, prior)
    falling = lengths.sort(descending=True).values
    return drawn if int(falling[-1]) == indices.shape[2] else dataclasses.replace(drawn, lengths=falling)


def _weighed(indices: Tensor, labels: Tensor, prior: Tensor) -> Tuples:
    """Give the tuples of a class equal weights that sum to its prior."""
    own = labels[indices[:, :, 0]]
    counts = torch.bincount(own[0], minlength=prior.numel())
    return Tuples(indices, own, (prior / counts)[own])


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
    repeats = (ordered[..., 1:] == ordered[..., :-1]).sum(-1)
    padding = 0 if drawn.lengths is None else indices.shape[2] - drawn.lengths
    twice = (repeats > padding).nonzero()
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


def _check_reach(
    lengths: Tensor, labels: Tensor, n: int, stride: int, classes: int, class_names: tuple[str, ...] | None
) -> None:
    """Refuse classes that no tuple of n instances at this stride comes from."""
    longest = torch.zeros(classes, dtype=torch.int64).scatter_reduce_(0, labels, lengths, "amax")
    reach, label = longest.min(0)
    if reach < n:
        name = class_names[int(label)] if class_names else str(int(label))
        at = f" at a stride of {stride}" if stride > 1 else ""
        raise DataError(
            f"expected at least n = {n} instances{at}, got {int(reach)} in the largest group of class {name!r}; "
            f"use n <= {int(reach)}{', a smaller stride' if stride > 1 else ''} or add instances"
        )


def largest(labels: Int64[Tensor, "N"], groups: Int64[Tensor, "N"] | None, classes: int) -> Int64[Tensor, "c"]:
    """Return the most instances of each class that a tuple can have: of one of its groups, if there are groups."""
    if groups is None:
        return torch.bincount(labels, minlength=classes)
    cells, sizes = torch.unique(torch.stack([labels, groups]), dim=1, return_counts=True)
    return torch.zeros(classes, dtype=torch.int64).scatter_reduce_(0, cells[0], sizes, "amax")


def _too_small(what: str, size: int, n: int) -> str:
    remedy = f"use n <= {size} or add instances" if size else "add instances"
    return f"expected at least n = {n} instances, got {size} in {what}; {remedy}"
