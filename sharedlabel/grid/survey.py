"""What the data of a grid are: images and groups of every class and split, what was left out, what is too little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

import torch

from sharedlabel.config.names import IID, SEQUENCE
from sharedlabel.data._small import smaller
from sharedlabel.grid import Grid
from sharedlabel.records import ClassCount
from sharedlabel.scoring.data import FEATURE_ROLES, SCORED_ROLES
from sharedlabel.types import Role

FEW_IMAGES, FEW_GROUPS = 50, 10  # of a class; with fewer, intervals are wide and hold the truth too rarely
_NAMED = 3
_SKIPPED = 3


def counts(grid: Grid) -> tuple[ClassCount, ...]:
    """Count the images and the groups of every class in every split."""
    dataset, counted = grid.data.dataset, []
    for role in get_args(Role):
        indices = grid.data.splits[role]
        labels = dataset.labels[indices]
        images = torch.bincount(labels, minlength=dataset.num_classes).tolist()
        groups: list[int | None] = [None] * dataset.num_classes
        if dataset.groups is not None:
            cells = torch.unique(torch.stack([labels, dataset.groups[indices]]), dim=1)[0]
            groups = list(torch.bincount(cells, minlength=dataset.num_classes).tolist())
        counted += [ClassCount(role, *facts) for facts in zip(dataset.class_names, images, groups, strict=True)]
    return tuple(counted)


def dropped(grid: Grid) -> dict[str, dict[str, int]]:
    """Count, for each split and n, the groups that are smaller than n; empty where no tuples stay within a group."""
    dataset, scoring = grid.data.dataset, grid.experiment.evaluation
    if dataset.groups is None or set(scoring.protocols) == {IID}:
        return {}
    stride = scoring.stride if set(scoring.protocols) <= {IID, SEQUENCE} else 1
    smaller_by_size = {role: smaller(dataset, grid.data.splits[role], scoring.n, stride)[0] for role in FEATURE_ROLES}
    return {role: {str(n): count for n, count in by_size.items()} for role, by_size in smaller_by_size.items()}


def remarks(grid: Grid) -> tuple[str, ...]:
    """Say what users should know of their data before they trust numbers, a sentence each."""
    return (*grid.data.dataset.remarks, *_skipped(grid), *_dropped(grid), *grid.remarks, *_few(grid))


def totals(grid: Grid) -> str:
    """Say in one line how many images, and groups if there are any, each split has."""
    dataset = grid.data.dataset

    def part(role: Role) -> str:
        indices = grid.data.splits[role]
        groups = "" if dataset.groups is None else f" of {len(dataset.groups[indices].unique()):,} groups"
        return f"{role} {len(indices):,}{groups}"

    return "images: " + ", ".join(map(part, get_args(Role)))


def _skipped(grid: Grid) -> Iterator[str]:
    skipped = grid.data.dataset.skipped
    if skipped:
        some = "; ".join(reason for _, reason in skipped[:_SKIPPED])
        more = f"; and {len(skipped) - _SKIPPED:,} more" if len(skipped) > _SKIPPED else ""
        yield f"skipped {len(skipped):,} files that cannot be read as images: {some}{more}"


def _dropped(grid: Grid) -> Iterator[str]:
    dataset, gone = grid.data.dataset, dropped(grid)
    largest = str(max(grid.experiment.evaluation.n))
    if not any(by_size[largest] for by_size in gone.values()):
        return
    parts = []
    for role in FEATURE_ROLES:
        of = smaller(dataset, grid.data.splits[role], ())[1]
        each = ", ".join(f"{count:,} with fewer than {n}" for n, count in gone[role].items() if count)
        parts.append(f"{role} {gone[role][largest]:,} of {of:,}" + (f" ({each})" if each else ""))
    kept = grid.experiment.evaluation.groups_smaller_than_n == "keep"
    what = "count at every n that they reach" if kept else "have no tuples, but of `iid`"
    yield f"groups with fewer than {largest} images {what} ({'; '.join(parts)})"


def _few(grid: Grid) -> Iterator[str]:
    for role in SCORED_ROLES:
        own = [count for count in counts(grid) if count.split == role]
        for what, least in (("images", FEW_IMAGES), ("groups", FEW_GROUPS)):
            few = [(count.label, getattr(count, what)) for count in own]
            few = [(label, number) for label, number in few if number is not None and number < least]
            if few:
                few.sort(key=lambda one: one[1])
                named = ", ".join(f"{label!r} {number}" for label, number in few[:_NAMED])
                more = ", ..." if len(few) > _NAMED else ""
                yield (
                    f"{role} has fewer than {least} {what} of {len(few):,} of {len(own):,} classes ({named}{more}): "
                    "read its intervals with care"
                )
