"""Splits of a data set into roles: fixed, seeded, stratified.

Aggregators never see the images that the backbone was trained on, everything is chosen on `validation`, and `test` is
read once.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config.sections import SplitConfig
from sharedlabel.data._shuffle import joint_cells, rank_within, shuffle_within
from sharedlabel.errors import DataError
from sharedlabel.types import ROLES, Dataset, Role

# Drawn from the smallest share to the largest: the earlier, the more evenly groups are represented.
_NOT_TEST: tuple[Role, ...] = ("validation", "aggregator", "backbone")
_TEST, _VALIDATION = 1, 2  # sides


def split(dataset: Dataset, config: SplitConfig) -> dict[Role, Int64[Tensor, "_"]]:
    """Split a data set into disjoint roles that together hold every instance (or every one that `limit` leaves).

    Args:
        dataset: what to split; its own test set, if any, becomes the role `test`, its own validation set `validation`.
        config: shares, seed and treatment of groups.

    Returns:
        Sorted instance indices of each role.

    Raises:
        DataError: a class is missing from a role, or the data set's own sides divide a group that should stay whole.
    """
    kept = _limited(dataset, config)
    if dataset.holdout is None:
        roles = assigned(*_labels_and_groups(dataset, kept), config)
    else:
        roles = torch.full_like(kept, ROLES.index("test"))
        side, shares = sides(dataset)[kept], _shares(config)
        _check_sides(dataset, kept, side, config)
        rest, drawn = side == 0, _NOT_TEST
        if dataset.validation is not None:
            roles[side == _VALIDATION] = ROLES.index("validation")
            drawn, shares = _NOT_TEST[1:], shares[1:] / shares[1:].sum()
        roles[rest] = _assign(*_labels_and_groups(dataset, kept[rest]), drawn, shares, config)
    _check_classes(dataset, kept, roles)
    return {role: kept[roles == index] for index, role in enumerate(ROLES)}


def assigned(labels: Int64[Tensor, "m"], groups: Int64[Tensor, "m"] | None, config: SplitConfig) -> Int64[Tensor, "m"]:
    """Return the role of each instance, as its place in `types.ROLES`, of instances without sides of their own.

    Args:
        labels: class index of each.
        groups: group of each, or None.
        config: shares, seed and treatment of groups.
    """
    shares = _shares(config)
    with_test = torch.cat([shares.new_tensor([config.test]), (1 - config.test) * shares])
    return _assign(labels, groups, ("test", *_NOT_TEST), with_test, config)


def sides(dataset: Dataset) -> Int64[Tensor, "N"]:
    """Return where the source itself puts each instance: 0 for training, 1 for its test set, 2 for validation."""
    side = torch.zeros_like(dataset.labels)
    if dataset.holdout is not None:
        side[dataset.holdout] = _TEST
    if dataset.validation is not None:
        side[dataset.validation] = _VALIDATION
    return side


def folds(
    dataset: Dataset, kept: Int64[Tensor, "m"], count: int, config: SplitConfig
) -> tuple[Int64[Tensor, "_"], ...]:
    """Cut instances into folds of about equal size, stratified and with groups treated as in `split`.

    Args:
        dataset: that they belong to.
        kept: sorted indices of the instances to cut.
        count: number of folds.
        config: seed and treatment of groups.

    Returns:
        Sorted instance indices of each fold; together they are `kept`.

    Raises:
        DataError: a class is missing from a fold.
    """
    labels, groups = _labels_and_groups(dataset, kept)
    dealt = folded(labels, groups, count, config)
    if lacking := missing(labels, dealt, count, dataset.num_classes):
        fold, label = lacking
        raise DataError(_missing_from_fold(dataset, kept[labels == label], fold, count, config))
    return tuple(kept[dealt == fold] for fold in range(count))


def folded(
    labels: Int64[Tensor, "m"], groups: Int64[Tensor, "m"] | None, count: int, config: SplitConfig
) -> Int64[Tensor, "m"]:
    """Return the fold of each instance, see `folds`.

    Args:
        labels: class index of each.
        groups: group of each, or None.
        count: number of folds.
        config: seed and treatment of groups.
    """
    equal = torch.full((count,), 1 / count, dtype=torch.float64)
    return _deal(labels, groups, equal, config, rng.generator(config.seed, "split", "folds", count))


def missing(labels: Int64[Tensor, "m"], part: Int64[Tensor, "m"], parts: int, classes: int) -> tuple[int, int] | None:
    """Return the first part, and the first class in it, without an instance; None if every part has every class.

    Args:
        labels: class index of each instance.
        part: that each instance is in.
        parts: how many there are.
        classes: how many there are.
    """
    absent = (torch.bincount(part * classes + labels, minlength=parts * classes) == 0).nonzero().flatten()
    return divmod(int(absent[0]), classes) if absent.numel() else None


def _missing_from_fold(dataset: Dataset, own: Tensor, fold: int, count: int, config: SplitConfig) -> str:
    """Say which class a fold lacks, of how many instances or groups, and what to do."""
    whole = dataset.groups is not None and config.groups == "whole"
    held = len(dataset.groups[own].unique()) if whole and dataset.groups is not None else len(own)
    return (
        f"crossfit.folds: expected every class in every fold, but {dataset.class_names[int(dataset.labels[own[0]])]!r} "
        f"has no instance in fold {fold + 1} of {count} ({held} {'groups' if whole else 'instances'} of it outside "
        "validation and test); use fewer folds"
        + (", more groups or split.groups=divided" if whole else " or add instances")
    )


def _labels_and_groups(dataset: Dataset, kept: Tensor) -> tuple[Tensor, Tensor | None]:
    return dataset.labels[kept], None if dataset.groups is None else dataset.groups[kept]


def _shares(config: SplitConfig) -> Float64[Tensor, "3"]:
    shares = torch.tensor([getattr(config, role) for role in _NOT_TEST], dtype=torch.float64)
    return shares / shares.sum()


def _limited(dataset: Dataset, config: SplitConfig) -> Int64[Tensor, "m"]:
    """Return sorted indices, at most `limit` per class, with the test set and every group thinned alike."""
    count = dataset.labels.numel()
    if not config.limit:
        return torch.arange(count)
    groups = torch.zeros(count).long() if dataset.groups is None else dataset.groups
    cells = joint_cells(dataset.labels, sides(dataset), groups)
    order = shuffle_within(cells, 1, rng.generator(config.seed, "split", "limit"))[0]
    sizes = torch.bincount(dataset.labels)
    return order[_evenly(sizes, sizes.clamp(max=config.limit))].sort().values


def _assign(
    labels: Tensor, groups: Tensor | None, roles: tuple[Role, ...], shares: Tensor, config: SplitConfig
) -> Int64[Tensor, "m"]:
    """Return the role index of each instance."""
    share = _deal(labels, groups, shares, config, rng.generator(config.seed, "split", "roles"))
    return torch.tensor([ROLES.index(role) for role in roles])[share]


def _deal(
    labels: Tensor, groups: Tensor | None, shares: Tensor, config: SplitConfig, generator: torch.Generator
) -> Int64[Tensor, "m"]:
    """Return which share each instance goes to."""
    units, strata, cells = _units(labels, groups, config)
    sizes = torch.bincount(strata)
    quotas = _quotas(sizes, shares)
    left = shuffle_within(joint_cells(strata, cells), 1, generator)[0]
    dealt = torch.empty_like(left)
    for share, quota in enumerate(quotas.unbind(1)):
        chosen = _evenly(sizes, quota)
        dealt[left[chosen]] = share
        left, sizes = left[~chosen], sizes - quota
    return dealt[units]


def _evenly(sizes: Int64[Tensor, "k"], take: Int64[Tensor, "k"]) -> Bool[Tensor, "m"]:
    """Choose exactly `take` of each consecutive run, evenly spaced, so that each cell within a run gets its share."""
    rank, size, take = rank_within(sizes), sizes.repeat_interleave(sizes), take.repeat_interleave(sizes)
    return (rank + 1) * take // size > rank * take // size


def _units(labels: Tensor, groups: Tensor | None, config: SplitConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Return the unit (what stays together) of each instance, and the stratum and the cell within it of each unit."""
    alone = torch.arange(labels.numel())
    if groups is None:
        return alone, joint_cells(labels), torch.zeros_like(labels)
    groups = joint_cells(groups)
    if config.groups == "divided":
        return alone, joint_cells(labels), groups
    # Groups may span classes (a speaker says every word): those that hold the same classes form a stratum.
    present = torch.zeros(int(groups.max()) + 1, int(labels.max()) + 1, dtype=torch.bool)
    present[groups, labels] = True
    strata = torch.unique(present, dim=0, return_inverse=True)[1]
    return groups, strata, torch.zeros_like(strata)


def _quotas(sizes: Int64[Tensor, "k"], shares: Float64[Tensor, "r"]) -> Int64[Tensor, "k r"]:
    """Round each share of each stratum; a stratum with a unit for every share gives each at least one."""
    count = shares.numel()
    ends = (sizes[:, None] * shares.cumsum(0) + 0.5).floor().long()
    for column in range(count):
        before = ends[:, column - 1] if column else torch.zeros_like(sizes)
        least = torch.where(sizes >= count, before + 1, before)
        most = torch.where(sizes >= count, sizes - (count - 1 - column), sizes)
        ends[:, column] = ends[:, column].maximum(least).minimum(most)
    return ends.diff(dim=1, prepend=torch.zeros_like(ends[:, :1]))


def _check_sides(dataset: Dataset, kept: Tensor, side: Tensor, config: SplitConfig) -> None:
    if dataset.groups is None or config.groups == "divided":
        return
    cells = torch.unique(torch.stack([dataset.groups[kept], side]), dim=1)[0]
    groups, times = torch.unique(cells, return_counts=True)
    straddling = groups[times > 1]
    if straddling.numel():
        raise DataError(
            f"data set {dataset.name!r}: expected groups that lie either in its test set or outside, or in its "
            f"validation set, but group {dataset.group_name(int(straddling[0]))} is on several sides "
            f"({straddling.numel()} groups in all); set split.groups to divided, or rename groups that only "
            "share a name"
        )


def _check_classes(dataset: Dataset, kept: Tensor, roles: Tensor) -> None:
    if lacking := missing(dataset.labels[kept], roles, len(ROLES), dataset.num_classes):
        role, label = lacking
        raise DataError(
            f"data set {dataset.name!r}: expected every class in every role, but {dataset.class_names[label]!r} has no "
            f"instance in {ROLES[role]!r} ({int((dataset.labels == label).sum())} instances in all); add instances"
            + ("" if dataset.groups is None else " or groups, or set split.groups to divided")
        )
