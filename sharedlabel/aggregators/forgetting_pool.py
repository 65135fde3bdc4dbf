"""The forgetting pool is a log-pool in which every further instance fades what came before."""

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

_START = (0.0, 4.0)  # the log-pool, but for a hundredth that fades
_BOUNDS = ((-5.0, 5.0), (-5.0, 12.0))


@dataclass(frozen=True)
class Config:
    """The forgetting pool has no options."""


class ForgettingPool(SharingAggregator):
    """Log-posterior log p(y) + a sum_i lambda^(k - i) evidence_i.

    With lambda = 1 it is a log-pool scaled by a, with lambda = 0 the last instance alone: it suits tuples whose later
    instances are better, such as frames of what comes nearer. The scale a and lambda are fitted on training tuples.
    Cost: O(n c) from one instance to the next, no products.

    Args:
        log_prior: `[c]`, natural log.

    Reference:
        Raftery, Karny & Ettler, "Online Prediction Under Model Uncertainty via Dynamic Model Averaging" (2010), whose
        forgetting factor flattens a posterior before each observation.
    """

    permutation_invariant = False
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
        return normalize(_scores(evidence, self.log_prior, self.coefficients))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit scale and forgetting on all prefixes; there is nothing left to train."""
        del embeddings
        with plainly():
            log_prior = self.log_prior.double()
            evidence = log_evidence(logits.double(), log_prior)
        found = fitted(lambda point: _scores(evidence, log_prior, point), _START, _BOUNDS, labels, weights.double())
        with torch.no_grad():
            self.coefficients.copy_(found)
        return True


def _scores(evidence: Tensor, log_prior: Tensor, coefficients: Tensor) -> Float[Tensor, "t n c"]:
    counts = prefix_counts(evidence)
    since = counts - counts.T  # [k, i], instances that came after i
    kept = (since.clamp_min(0) * nn.functional.logsigmoid(coefficients[1])).exp().tril()
    return log_prior + coefficients[0].exp() * (kept @ evidence)


def build(config: Config, shape: SetShape) -> ForgettingPool:
    """Build a forgetting pool."""
    del config
    return ForgettingPool(shape.log_prior)
