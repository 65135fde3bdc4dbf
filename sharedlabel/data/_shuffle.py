"""Random order within cells (a class, or a class and a group), without a loop over cells."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor

_NOISE_BITS = 40  # leaves 23 bits for the cell: 8 million cells


def shuffle_within(cells: Int64[Tensor, "m"], rows: int, generator: torch.Generator) -> Int64[Tensor, "p m"]:
    """Order positions by cell, and at random within each cell; every row is an independent draw.

    Args:
        cells: cell of each position, counted from 0.
        rows: number of independent orders.
        generator: source of the randomness.

    Returns:
        Permutations of the positions, one per row.
    """
    noise = torch.randint(1 << _NOISE_BITS, (rows, cells.numel()), generator=generator)
    # Integer keys, so that noise can never carry a position over into the next cell.
    return ((cells << _NOISE_BITS) | noise).argsort(dim=1, stable=True)


def rank_within(sizes: Int64[Tensor, "k"]) -> Int64[Tensor, "m"]:
    """Count 0, 1, ... within each of the consecutive runs of the given sizes.

    >>> rank_within(torch.tensor([2, 3])).tolist()
    [0, 1, 0, 1, 2]
    """
    starts = sizes.cumsum(0) - sizes
    return torch.arange(int(sizes.sum())) - starts.repeat_interleave(sizes)


def joint_cells(*columns: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """Number the distinct combinations of several columns from 0, the first column being the most significant.

    >>> joint_cells(torch.tensor([0, 1, 1]), torch.tensor([7, 2, 7])).tolist()
    [0, 1, 2]
    """
    cells: Tensor = torch.unique(columns[0], return_inverse=True)[1]
    for column in columns[1:]:
        inner = torch.unique(column, return_inverse=True)[1]
        width = int(inner.max()) + 1 if inner.numel() else 1
        cells = torch.unique(cells * width + inner, return_inverse=True)[1]
    return cells
