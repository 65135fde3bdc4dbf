"""The random-effect pool adds up evidence of instances that share a part of their errors: n of them are worth fewer."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import normalize, prefix_counts
from sharedlabel.aggregators._fitted import fitted, plainly
from sharedlabel.aggregators._pool import log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape

_START = (0.0, -4.0)  # the log-pool, but for a correlation of .02
_BOUNDS = ((-5.0, 5.0), (-12.0, 12.0))


@dataclass(frozen=True)
class Config:
    """The random-effect pool has no options."""


class RandomEffectPool(SharingAggregator):
    """Log-posterior log p(y) + a n_eff(k) mean evidence, n_eff(k) = k / (1 + (k - 1) rho).

    It is exact for evidence that is Gaussian and exchangeable given the label, any two instances correlated by rho: k
    of them are worth n_eff(k) independent ones, never more than 1 / rho. The scale a and rho are fitted on training
    tuples. Cost: O(n c), no products.

    Args:
        log_prior: `[c]`, natural log.

    Reference:
        Kish, "Survey Sampling" (1965), the design effect of clusters; as a weight of pooled evidence it is ours.
    """

    permutation_invariant = True
    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())
        self.coefficients = nn.Parameter(torch.tensor(_START, dtype=log_prior.dtype))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the evidence of each instance."""
        del embeddings
        return (log_evidence(logits, self.log_prior),)

    def together(self, evidence: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(_scores(evidence.cumsum(1), self.log_prior, self.coefficients))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit scale and correlation on all prefixes; there is nothing left to train."""
        del embeddings
        with plainly():
            log_prior = self.log_prior.double()
            sums = log_evidence(logits.double(), log_prior).cumsum(1)
        found = fitted(lambda point: _scores(sums, log_prior, point), _START, _BOUNDS, labels, weights.double())
        with torch.no_grad():
            self.coefficients.copy_(found)
        return True


def _scores(sums: Tensor, log_prior: Tensor, coefficients: Tensor) -> Float[Tensor, "t n c"]:
    scale, correlation = coefficients[0].exp(), coefficients[1].sigmoid()
    return log_prior + scale * sums / (1 + (prefix_counts(sums) - 1) * correlation)


def build(config: Config, shape: SetShape) -> RandomEffectPool:
    """Build a random-effect pool."""
    del config
    return RandomEffectPool(shape.log_prior)
