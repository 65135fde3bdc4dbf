"""Splits of a data set into roles: fixed, seeded, stratified.

Aggregators never see the images that the backbone was trained on, everything is chosen on `validation`, and `test` is
read once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sharedlabel import rng
from sharedlabel.data._shuffle import joint_cells, rank_within, shuffle_within
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.types import Dataset, Role

_ROLES: tuple[Role, ...] = get_args(Role)
_NOT_TEST: tuple[Role, ...] = ("backbone", "aggregator", "validation")


@dataclass(frozen=True)
class SplitConfig:
    """Shares of the data set.

    Args:
        backbone: share for training backbones, relative to `aggregator` and `validation`.
        aggregator: share for training aggregators, relative to the other two.
        validation: share for every choice (calibration, thresholds, sweet spot), relative to the other two.
        test: fraction in (0, 1) of the whole for the final report; not used when the data set has its own test set.
        seed: seed of the split.
        groups: `whole` keeps each group (track, speaker, specimen) within one role and shares out groups; `divided`
            gives every role its share of each group. Without groups the two are the same.
        limit: cap on the instances per class, taken before splitting, for smoke runs; 0 for all.
    """

    backbone: float = 0.7
    aggregator: float = 0.2
    validation: float = 0.1
    test: float = 0.2
    seed: int = 0
    groups: Literal["whole", "divided"] = "whole"
    limit: int = 0


def split(dataset: Dataset, config: SplitConfig) -> dict[Role, Int64[Tensor, "_"]]:
    """Split a data set into disjoint roles that together hold every instance (or every one that `limit` leaves).

    Args:
        dataset: what to split; its own test set, if any, becomes the role `test`.
        config: shares, seed and treatment of groups.

    Returns:
        Sorted instance indices of each role.

    Raises:
        ConfigError: shares that are not positive, or `test` outside (0, 1).
        DataError: a class is missing from a role, or the data set's own test set divides a group that should stay
            whole.
    """
    _check_config(config)
    kept = _limited(dataset, config)
    roles = torch.full_like(kept, _ROLES.index("test"))
    shares = _shares(config)
    if dataset.holdout is None:
        with_test = torch.cat([shares.new_tensor([config.test]), (1 - config.test) * shares])
        roles = _assign(dataset, kept, ("test", *_NOT_TEST), with_test, config)
    else:
        rest = ~dataset.holdout[kept]
        _check_holdout(dataset, kept, rest, config)
        roles[rest] = _assign(dataset, kept[rest], _NOT_TEST, shares, config)
    _check_classes(dataset, kept, roles)
    return {role: kept[roles == index] for index, role in enumerate(_ROLES)}


def _shares(config: SplitConfig) -> Float64[Tensor, "3"]:
    shares = torch.tensor([config.backbone, config.aggregator, config.validation], dtype=torch.float64)
    return shares / shares.sum()


def _limited(dataset: Dataset, config: SplitConfig) -> Int64[Tensor, "m"]:
    """Return sorted indices, at most `limit` per class, with the test set and every group thinned alike."""
    count = dataset.labels.numel()
    if not config.limit:
        return torch.arange(count)
    holdout = torch.zeros(count).long() if dataset.holdout is None else dataset.holdout.long()
    groups = torch.zeros(count).long() if dataset.groups is None else dataset.groups
    cells = joint_cells(dataset.labels, holdout, groups)
    order = shuffle_within(cells, 1, rng.generator(config.seed, "split", "limit"))[0]
    sizes = torch.bincount(dataset.labels)
    rank, size = rank_within(sizes), sizes.repeat_interleave(sizes)
    take = size.clamp(max=config.limit)
    # Evenly spaced ranks of (test set, group, random): exactly `take` of each class, and each cell gets its share.
    keep = (rank + 1) * take // size > rank * take // size
    return order[keep].sort().values


def _assign(
    dataset: Dataset, kept: Tensor, roles: tuple[Role, ...], shares: Tensor, config: SplitConfig
) -> Int64[Tensor, "m"]:
    """Return the role index of each kept instance."""
    units, strata = _units(dataset, kept, config)
    sizes = torch.bincount(strata)
    ends = _cut(sizes, shares)  # [k, r]
    order = shuffle_within(strata, 1, rng.generator(config.seed, "split", "roles"))[0]
    slot = (rank_within(sizes)[:, None] >= ends.repeat_interleave(sizes, 0)).sum(1)
    slots = torch.empty_like(slot).scatter(0, order, slot)
    return torch.tensor([_ROLES.index(role) for role in roles])[slots[units]]


def _units(dataset: Dataset, kept: Tensor, config: SplitConfig) -> tuple[Tensor, Tensor]:
    """Return the unit (what stays together) of each instance, and the stratum of each unit."""
    labels = dataset.labels[kept]
    if dataset.groups is None:
        return torch.arange(kept.numel()), joint_cells(labels)
    groups = joint_cells(dataset.groups[kept])
    if config.groups == "divided":
        return torch.arange(kept.numel()), joint_cells(labels, groups)
    # Groups may span classes (a speaker says every word): those that hold the same classes form a stratum.
    present = torch.zeros(int(groups.max()) + 1, dataset.num_classes, dtype=torch.bool)
    present[groups, labels] = True
    return groups, torch.unique(present, dim=0, return_inverse=True)[1]


def _cut(sizes: Int64[Tensor, "k"], shares: Float64[Tensor, "r"]) -> Int64[Tensor, "k r"]:
    """Return where each share of each stratum ends; a stratum with a unit for every share gives each at least one."""
    ends = (sizes[:, None] * shares.cumsum(0) + 0.5).floor().long()
    count = shares.numel()
    least = torch.arange(1, count + 1)
    for column in range(1, count):
        ends[:, column] = torch.maximum(ends[:, column], ends[:, column - 1] + 1)
    return torch.where(sizes[:, None] >= count, ends.maximum(least).minimum(sizes[:, None] - count + least), ends)


def _check_config(config: SplitConfig) -> None:
    for name in _NOT_TEST:
        if getattr(config, name) <= 0:
            raise ConfigError(f"expected a positive share {name!r}, got {getattr(config, name)}; raise it above 0")
    if not 0 < config.test < 1:
        raise ConfigError(f"expected a test share between 0 and 1, got {config.test}; try 0.2")
    if config.limit < 0:
        raise ConfigError(f"expected a limit of 0 (all) or more instances per class, got {config.limit}")


def _check_holdout(dataset: Dataset, kept: Tensor, rest: Tensor, config: SplitConfig) -> None:
    if dataset.groups is None or config.groups == "divided":
        return
    groups = dataset.groups[kept]
    straddling = torch.unique(groups[rest])
    straddling = straddling[torch.isin(straddling, groups[~rest])]
    if straddling.numel():
        raise DataError(
            f"data set {dataset.name!r}: expected groups that lie either in its test set or outside, but group "
            f"{int(straddling[0])} is in both ({straddling.numel()} groups in all); set `groups: divided` for the split"
        )


def _check_classes(dataset: Dataset, kept: Tensor, roles: Tensor) -> None:
    classes = dataset.num_classes
    counts = torch.bincount(roles * classes + dataset.labels[kept], minlength=len(_ROLES) * classes)
    missing = (counts == 0).nonzero().flatten()
    if missing.numel():
        role, label = divmod(int(missing[0]), classes)
        raise DataError(
            f"data set {dataset.name!r}: expected every class in every role, but {dataset.class_names[label]!r} has no "
            f"instance in {_ROLES[role]!r} ({int((dataset.labels == label).sum())} instances in all); add instances"
            + ("" if dataset.groups is None else " or groups, or set `groups: divided` for the split")
        )
