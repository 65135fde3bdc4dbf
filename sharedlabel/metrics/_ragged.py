"""Tuples of different sizes: at every n those count that reach it, and each class weighs as much as in all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Int64
from torch import Tensor

from sharedlabel.types import Tuples


class Shelf(NamedTuple):
    """Numbers of instances that the same tuples reach.

    Attributes:
        columns: positions of these numbers among those asked for.
        drawn: the tuples, of one size as far as these numbers are concerned.
    """

    columns: Int64[Tensor, "j"]
    drawn: Tuples

    @property
    def width(self) -> int:
        """Tuples of a partition; they are the first of all."""
        return self.drawn.labels.shape[1]


def shelves(drawn: Tuples, sizes: Sequence[int]) -> list[Shelf]:
    """Sort numbers of instances by the tuples that reach them.

    Args:
        drawn: tuples, of different sizes or of one.
        sizes: numbers of instances.

    >>> indices, labels = torch.tensor([[[0, 1], [2, 2]]]), torch.tensor([[0, 0]])
    >>> drawn = Tuples(indices, labels, torch.tensor([[0.5, 0.5]]), torch.tensor([2, 1]))
    >>> [(shelf.columns.tolist(), shelf.width) for shelf in shelves(drawn, [1, 2])]
    [([0], 2), ([1], 1)]
    """
    if drawn.lengths is None:
        return [Shelf(torch.arange(len(sizes)), drawn)]
    reached = (drawn.lengths >= torch.tensor(list(sizes))[:, None]).sum(1)
    return [
        Shelf((reached == count).nonzero()[:, 0], drawn.reaching(int(drawn.lengths[count - 1])))
        for count in reached.unique().flip(0).tolist()
    ]


def cut(values: Tensor, shelf: Shelf, axis: int) -> Tensor:
    """Return the values of a shelf.

    Args:
        values: `[... p t k ...]`.
        shelf: whose.
        axis: of the tuples; that of the numbers of instances follows it.
    """
    return values.narrow(axis, 0, shelf.width).index_select(axis + 1, shelf.columns)


def joined(parts: Iterator[tuple[Shelf, Tensor]] | Sequence[tuple[Shelf, Tensor]], axis: int = -1) -> Tensor:
    """Return the values of all shelves in the order in which the numbers of instances were asked for.

    Args:
        parts: values by shelf.
        axis: of the numbers of instances.
    """
    shelved = list(parts)
    order = torch.cat([shelf.columns for shelf, _ in shelved]).argsort()
    return torch.cat([values for _, values in shelved], dim=axis).index_select(axis, order)
