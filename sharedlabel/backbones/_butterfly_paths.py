"""The paths of a truncated butterfly network: which weights lie on them, and what their products are.

Levels 0 to p of 2**p nodes each. Stage i leads from level i to level i + 1 and joins nodes whose numbers are equal or
differ in bit i. Inputs are the first n nodes of level 0; of level p, k nodes are kept. A node of level i, with number
h * 2**i + r, lies on a path from an input to a kept node s iff h < N_i = ceil(n / 2**i) and r is in
R_i = {s mod 2**i}. So the weights of stage i that matter form a matrix `[|R_i+1|, N_i]`: row c, column h is the edge
from node h * 2**i + (c mod 2**i) of level i to node (h // 2) * 2**(i+1) + c of level i + 1. There are no others here:
at most 2 n log2 k + 6 n for k kept nodes and n = 2**p (appendix F of the paper).

One path leads from input j to s, so the network is the matrix J[s, j] = product of w_i[s mod 2**(i+1), j >> i] over i.

Reference: Ailon, Leibovitch & Nair, "Sparse Linear Networks with a Fixed Butterfly Structure: Theory and Practice"
(2021), definition 4.1 and appendix F.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (the name everyone reads)
from jaxtyping import Float, Int64
from torch import Tensor


def depth(width: int) -> int:
    """Return the number of stages p of a butterfly network with `width` inputs, padded to a power of two."""
    return (width - 1).bit_length()


def columns(width: int) -> tuple[int, ...]:
    """Return N_i, the columns of the weights of every stage.

    >>> columns(6)
    (6, 3, 2)
    """
    return tuple(-(-width // 2**stage) for stage in range(depth(width)))


def draw_order(width: int, generator: torch.Generator | None = None) -> Int64[Tensor, "m"]:
    """Draw the order in which outputs are kept: the first k are a uniform subset, and they nest in k."""
    return torch.randperm(2 ** depth(width), generator=generator)


def weight_counts(width: int, order: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
    """Count the weights of truncated butterfly networks that keep the first 1, 2, ..., m outputs of an order.

    >>> weight_counts(4, torch.tensor([0, 1, 2, 3]))  # 2 * 4 * log2 4 in full
    tensor([ 6, 12, 14, 16])
    """
    added, position = torch.zeros_like(order), torch.arange(len(order))
    for stage, size in enumerate(columns(width)):
        residues = order % 2 ** (stage + 1)
        first = torch.full((2 ** (stage + 1),), len(order)).scatter_reduce_(0, residues, position, "amin")
        added += size * (first[residues] == position)
    return added.cumsum(0)


def sort_by_low_bits(numbers: Int64[Tensor, "k"], bits: int) -> Int64[Tensor, "k"]:
    """Sort by bit 0, then bit 1 and so on: numbers that agree in their low bits are neighbours.

    >>> sort_by_low_bits(torch.tensor([1, 2, 3, 4]), 3)
    tensor([4, 2, 1, 3])
    """
    shifts = torch.arange(bits)
    reversed_bits = ((numbers[:, None] >> shifts & 1) << shifts.flip(0)).sum(1)
    return numbers[reversed_bits.argsort()]


def compose(stages: Sequence[Float[Tensor, "_ _"]], rows: Int64[Tensor, "_ c"]) -> Float[Tensor, "c _"]:
    """Multiply the weights along every path through consecutive stages.

    Args:
        stages: weights of each stage, input side first.
        rows: for each stage but the last, which of its rows leads to each row of the last.

    Returns:
        One row per row of the last stage, one column per column of the first.
    """
    product = stages[-1]
    for weights, row in zip(reversed(stages[:-1]), reversed(rows.unbind()), strict=True):
        size = weights.shape[1]
        if len(weights) < len(product):  # equally many rows are the same rows, as both are sorted by low bits
            weights = F.embedding(row, weights)  # noqa: PLW2901  (an index whose gradient is fast and deterministic)
        if size % 2:
            weights = F.pad(weights, (0, 1))  # noqa: PLW2901
        product = (product[:, :, None] * weights.unflatten(1, (-1, 2))).flatten(1)
        if size % 2:
            product = product[:, :-1]
    return product
