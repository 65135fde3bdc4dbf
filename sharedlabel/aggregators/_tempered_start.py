"""Aggregators that correct the tempered log-pool, where their training starts."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._shared import SharingAggregator


class TemperedStart(SharingAggregator):
    """An aggregator that is the tempered log-pool until something is trained.

    Attributes:
        pool: that log-pool.
    """

    fits_ragged = True
    pool: TemperedPool

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> bool:
        """Start at the tempered log-pool; gradient descent does the rest."""
        del embeddings
        self.pool.fit(logits, labels, weights)
        return False
