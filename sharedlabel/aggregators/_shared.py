"""Posteriors of many tuples of the same instances: what is computed of each instance alone is computed once.

Partitions cut the same images into tuples again and again: early stopping and evaluation see every image several times.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.aggregators._base import CHUNK, Aggregator, at_once, pick

_INSTANCES = 4096  # per pass


class SharingAggregator(Aggregator):
    """An aggregator in two parts: what it computes of each instance alone, and the rest.

    Where `forward` is overridden, both parts have to compute what it does in evaluation mode, but for rounding.

    Attributes:
        together: a method that returns the log-posteriors `[t n c]` after every prefix, of the parts `[t n f]` that
            `each` has returned of the instances of tuples.
    """

    together: Callable[..., Tensor]

    @abc.abstractmethod
    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, ...]:
        """Return what is computed of each instance alone; every part is `[*b f]`."""

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self.together(*self.each(embeddings, logits))

    @torch.no_grad()
    def over(
        self,
        embeddings: Float[Tensor, "m d"],
        logits: Float[Tensor, "m c"],
        tuples: Int64[Tensor, "t n"],
        prefixes: Sequence[int],
        draft: bool = False,
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior of tuples of shared instances after some prefixes."""
        del draft
        instances = at_once(_INSTANCES, logits.device)
        passes = zip(embeddings.split(instances), logits.split(instances), strict=True)
        parts = [torch.cat(part) for part in zip(*(self.each(*some) for some in passes), strict=True)]
        chunks = tuples.split(at_once(CHUNK, tuples.device))
        fused = (self.together(*(part[rows] for part in parts)) for rows in chunks)
        return torch.cat([pick(posterior, prefixes) for posterior in fused])
