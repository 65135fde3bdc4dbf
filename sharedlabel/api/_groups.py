"""Groups of rows, as scikit-learn's users give them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def numbered(groups: Any, rows: int) -> Int64[Tensor, "N"] | None:
    """Number the groups of rows; None where each is alone.

    Args:
        groups: name or number of the group of each row, or None.
        rows: how many there are.

    Raises:
        ValueError: there is not one for each row, or they cannot be told apart.

    >>> numbered(["b", "a", "b"], 3)
    tensor([1, 0, 1])
    """
    if groups is None:
        return None
    names = np.asarray(groups)
    if names.shape != (rows,):
        raise ValueError(f"groups: expected one for each of {rows} rows, got shape {names.shape}; pass [N]")
    for row, name in enumerate(names.tolist()):
        if not _tells(name):
            raise ValueError(f"groups: expected one for each row, got {name!r} for row {row}; give it one of its own")
    try:
        return torch.from_numpy(np.unique(names, return_inverse=True)[1].astype(np.int64))
    except TypeError as error:
        raise ValueError(
            f"groups: expected names of one kind, or numbers, got both: {error}; write all as text"
        ) from error


def _tells(name: Any) -> bool:
    """Tell whether a name is one: neither None nor NaN, nor what pandas writes for a missing value."""
    same = name == name  # noqa: PLR0124  (the last two do not equal themselves)
    return name is not None and isinstance(same, bool | np.bool_) and bool(same)


def check_shared(groups: Int64[Tensor, "N"], labels: Int64[Tensor, "N"]) -> None:
    """Refuse a group of several labels.

    Args:
        groups: from `numbered`.
        labels: class index of each row.

    Raises:
        ValueError: there is one.
    """
    pairs = torch.stack([groups, labels]).unique(dim=1)
    if pairs.shape[1] > int(groups.max()) + 1:
        twice = int(torch.bincount(pairs[0]).argmax())
        first = int((groups == twice).nonzero()[0])
        raise ValueError(
            f"groups: expected one label in each, got {int((pairs[0] == twice).sum())} in the group of row {first}; "
            "give what differs other groups"
        )


def rows_by_size(groups: Int64[Tensor, "N"]) -> Iterator[Int64[Tensor, "t n"]]:
    """Yield the rows of groups of equal size together, in the order of the rows.

    Args:
        groups: number of the group of each row.
    """
    order = groups.argsort(stable=True)
    sizes = torch.bincount(groups)
    starts = sizes.cumsum(0) - sizes
    for size in sizes.unique().tolist():
        if size:
            yield order[starts[sizes == size][:, None] + torch.arange(size)]
