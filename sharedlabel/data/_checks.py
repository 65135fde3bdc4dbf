"""What every data set must satisfy, checked once after loading."""

from __future__ import annotations

import hashlib

import torch
from jaxtyping import Float64, Int64, Num
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.types import Dataset


def validate(dataset: Dataset) -> Dataset:
    """Return the data set unchanged if stages can rely on it.

    Raises:
        DataError: fewer than two classes, labels outside the range, a class without instances, columns of different
            lengths, images that hold NaN or infinity, or two instances of a class at one position of their group.
    """
    _check_lengths(dataset)
    _check_labels(dataset)
    if dataset.positions is not None and dataset.groups is not None:
        _check_positions(dataset, dataset.positions, dataset.groups)
    if isinstance(dataset.images, Tensor) and dataset.images.is_floating_point():
        _check_finite(dataset, dataset.images)
    return dataset


def fingerprint(
    images: Num[Tensor, "N C H W"],
    labels: Int64[Tensor, "N"],
    class_names: tuple[str, ...],
    groups: Int64[Tensor, "N"] | None = None,
    positions: Float64[Tensor, "N"] | None = None,
) -> str:
    """Return the sha256 of the content of data that are held in memory."""
    digest = hashlib.sha256()
    digest.update(repr((str(images.dtype), tuple(images.shape), class_names)).encode())
    for column in (images, labels, groups, positions):
        if column is not None:
            digest.update(column.flatten().numpy().data)
    return digest.hexdigest()


def _check_lengths(dataset: Dataset) -> None:
    count = dataset.images.shape[0]
    for field in ("labels", "groups", "holdout", "validation", "positions"):
        column = getattr(dataset, field)
        if column is not None and column.shape[0] != count:
            raise DataError(
                f"data set {dataset.name!r}: expected one entry of `{field}` per image, {count} in all, "
                f"got {column.shape[0]}; give every image exactly one"
            )


def _check_labels(dataset: Dataset) -> None:
    name, classes, labels = dataset.name, dataset.num_classes, dataset.labels
    if classes < 2:
        names = ", ".join(dataset.class_names) or "none"
        raise DataError(f"data set {name!r}: expected at least two classes, got {classes} ({names}); add another class")
    outside = ((labels < 0) | (labels >= classes)).nonzero().flatten()
    if outside.numel():
        position = int(outside[0])
        raise DataError(
            f"data set {name!r}: expected labels from 0 to {classes - 1}, got {int(labels[position])} for instance "
            f"{position} ({outside.numel()} outside in all); correct the labels or name every class"
        )
    empty = (torch.bincount(labels, minlength=classes) == 0).nonzero().flatten()
    if empty.numel():
        raise DataError(
            f"data set {name!r}: expected instances of every class, got none of "
            f"{dataset.class_names[int(empty[0])]!r}; add some or remove the class"
        )


def _check_positions(dataset: Dataset, positions: Tensor, groups: Tensor) -> None:
    """Refuse positions that give the instances of a group no order."""
    if not bool(positions.isfinite().all()):
        wrong = int((~positions.isfinite()).nonzero()[0])
        raise DataError(
            f"data set {dataset.name!r}: expected numbers as positions, got {float(positions[wrong])} for instance "
            f"{wrong}; number or time it"
        )
    place = positions.unique(return_inverse=True)[1]
    places, times = torch.stack([dataset.labels, groups, place]).unique(dim=1, return_counts=True)
    if int(times.max()) == 1:
        return
    label, group, at = places[:, times > 1][:, 0]
    twice = ((dataset.labels == label) & (groups == group) & (place == at)).nonzero()[:2, 0].tolist()
    first, second = (one if dataset.instance_names is None else repr(dataset.instance_names[one]) for one in twice)
    raise DataError(
        f"data set {dataset.name!r}: expected positions that differ within a group, got "
        f"{float(positions[twice[0]]):g} for both {first} and {second} of group {dataset.group_name(int(group))}; "
        "correct one of them"
    )


def _check_finite(dataset: Dataset, images: Tensor) -> None:
    # Batches, because the images may be a memory map that is larger than memory.
    for start in range(0, images.shape[0], 4096):
        finite = images[start : start + 4096].isfinite().flatten(1).all(1)
        if not finite.all():
            position = start + int((~finite).nonzero()[0])
            raise DataError(
                f"data set {dataset.name!r}: expected finite images, got NaN or infinity in instance {position}; "
                "remove or repair it"
            )
