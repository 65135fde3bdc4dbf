"""The tempered log-pool scales the evidence of the log-pool by a fitted power law in the number of instances."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.aggregators._base import normalize
from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The tempered log-pool has no options."""


class TemperedLogPool(SharingAggregator):
    """Scale the evidence of k instances by exp(a0 + a1 log k), fitted on training tuples.

    a0 corrects the confidence of one instance, a1 the dependence between instances of one tuple.

    Args:
        log_prior: `[c]`, natural log.

    Reference:
        Rahaman & Thiery, "Uncertainty Quantification and Deep Ensembles" (2021), who pool first and then temper; the
        power law in k is ours.
    """

    permutation_invariant = True
    fits_ragged = True

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.pool = TemperedPool(log_prior)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the evidence of each instance."""
        del embeddings
        return (self.pool.evidence(logits),)

    def together(self, evidence: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the tempered log-posterior after every prefix."""
        return normalize(self.pool(evidence))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> bool:
        """Fit the temperature on all prefixes; there is nothing left to train."""
        del embeddings
        self.pool.fit(logits, labels, weights)
        return True


def build(config: Config, shape: SetShape) -> TemperedLogPool:
    """Build a tempered log-pool."""
    del config
    return TemperedLogPool(shape.log_prior)
