"""Groups and classes with fewer instances than a tuple holds: who they are, and a data set without them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int64
from torch import Tensor

from sharedlabel.data.tuples import largest
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset, Role

Splits = Mapping[Role, Int64[Tensor, "_"]]


def smaller(
    dataset: Dataset, indices: Int64[Tensor, "m"], sizes: Sequence[int], stride: int = 1
) -> tuple[dict[int, int], int]:
    """Count the groups of a split that have fewer instances than tuples of each size; one of two classes counts twice.

    Args:
        dataset: with groups.
        indices: the split.
        sizes: n of each.
        stride: of the tuples, which take every so many-th instance.

    Returns:
        The count by size, and how many groups there are.
    """
    counts = reach(_cells(dataset, indices)[1], stride)
    return {n: int((counts < n).sum()) for n in sizes}, len(counts)


def reach(sizes: Int64[Tensor, "k"], stride: int) -> Int64[Tensor, "k"]:
    """Return how many instances a tuple of every so many-th one can have, of groups of some sizes."""
    return (sizes - 1) // stride + 1


def check_groups(dataset: Dataset, indices: Int64[Tensor, "m"], n: int, stride: int = 1) -> None:
    """Refuse groups with fewer than n instances at a stride.

    Raises:
        DataError: names the smallest.
    """
    cells, counts = _cells(dataset, indices)
    size, smallest = reach(counts, stride).min(0)
    if size < n:
        label, group = cells[:, smallest].tolist()
        at = f" at a stride of {stride}" if stride > 1 else ""
        raise DataError(
            f"expected at least n = {n} instances{at}, got {int(size)} in group {dataset.group_name(group)} of class "
            f"{dataset.class_names[label]!r}; use n <= {int(size)}, add instances or set "
            "evaluation.groups_smaller_than_n to keep or drop"
        )


def without_small_classes(
    dataset: Dataset, splits: Splits, drawn: Sequence[Int64[Tensor, "_"]], n: int, *, grouped: bool, stride: int = 1
) -> tuple[Dataset, dict[Role, Int64[Tensor, "_"]], tuple[str, ...]]:
    """Leave out the classes that have no tuple of n instances in one of the splits.

    Args:
        dataset: all of it; its arrays stay as they are, so that a memory map stays on disk.
        splits: instance indices of each role.
        drawn: instance indices of each set of images that tuples are drawn from.
        n: instances of the largest tuples.
        grouped: whether tuples come from one group each.
        stride: of tuples that take every so many-th instance.

    Returns:
        The data set with labels of the classes left, -1 elsewhere; the splits; the names of the classes that left.

    Raises:
        DataError: fewer than two classes are left.
    """
    most = torch.stack([reach(_largest(dataset, indices, grouped), stride) for indices in drawn]).amin(0)
    keep = most >= n
    gone = tuple(name for name, kept in zip(dataset.class_names, keep.tolist(), strict=True) if not kept)
    if not gone:
        return dataset, dict(splits), ()
    names = tuple(name for name, kept in zip(dataset.class_names, keep.tolist(), strict=True) if kept)
    if len(names) < 2:
        raise DataError(
            f"evaluation.classes_smaller_than_n: expected two classes or more with n = {n} instances in every split, "
            f"got {len(names)} of {len(keep)}; use a smaller n or add instances"
        )
    numbers = torch.where(keep, keep.cumsum(0) - 1, -1)
    labels = numbers[dataset.labels]
    left = {role: indices[labels[indices] >= 0] for role, indices in splits.items()}
    content = hashlib.sha256(json.dumps([dataset.fingerprint, names]).encode()).hexdigest()
    return dataclasses.replace(dataset, labels=labels, class_names=names, fingerprint=content), left, gone


def _largest(dataset: Dataset, indices: Tensor, grouped: bool) -> Int64[Tensor, "c"]:
    groups = dataset.groups[indices] if grouped and dataset.groups is not None else None
    return largest(dataset.labels[indices], groups, dataset.num_classes)


def _cells(dataset: Dataset, indices: Tensor) -> tuple[Int64[Tensor, "2 k"], Int64[Tensor, "k"]]:
    """Return the label and the group of each group within a class, and its size."""
    assert dataset.groups is not None
    both = torch.stack([dataset.labels[indices], dataset.groups[indices]])
    cells, counts = torch.unique(both, dim=1, return_counts=True)
    return cells, counts
