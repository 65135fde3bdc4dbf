"""The novelty pool counts an instance the less, the more like the others of its tuple it looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import Standardize, normalize, widen
from sharedlabel.aggregators._fitted import fitted, plainly
from sharedlabel.aggregators._pool import log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape

_START = (0.0, -4.0, 0.0)  # the log-pool, but for a fiftieth that is shared; what is alike: half the usual distance
_BOUNDS = ((-5.0, 5.0), (-12.0, 12.0), (-4.0, 4.0))


@dataclass(frozen=True)
class Config:
    """The novelty pool has no options."""


class NoveltyPool(SharingAggregator):
    """Log-posterior log p(y) + a sum_i evidence_i / (1 + rho sum_{j != i} s_ij), s_ij = exp(-d_ij^2 / (2 l^2)).

    d_ij is the distance of two standardised embeddings, in units of the square root of their width: two instances that
    look the same count together as 1 / (1 + rho) each, two that do not as one each. The scale a, the length l and rho
    are fitted on training tuples. Cost: O(n^2 d).

    Args:
        shape: statistics of the embeddings, and the prior.

    Reference:
        Leinster & Cobbold, "Measuring diversity: the importance of species similarity" (2012): with rho = a = 1 the
        weights add up to the effective number of species whose similarities are s, of order 0 and equal abundance. As
        weights of evidence they are ours.
    """

    permutation_invariant = True
    log_prior: Tensor

    def __init__(self, shape: SetShape) -> None:
        super().__init__()
        self.register_buffer("log_prior", shape.log_prior.clone())
        self.standardize = Standardize(shape)
        self.coefficients = nn.Parameter(torch.tensor(_START, dtype=shape.log_prior.dtype))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, Tensor]:
        """Return the evidence of each instance, and its place."""
        seen = widen(self.standardize(embeddings))
        return log_evidence(logits, self.log_prior), seen / seen.shape[-1] ** 0.5

    def together(self, evidence: Float[Tensor, "t n c"], places: Float[Tensor, "t n d"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(_scores(evidence, _apart(places), self.log_prior, self.coefficients))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit scale, correlation and length on all prefixes; there is nothing left to train."""
        with plainly():
            log_prior = self.log_prior.double()
            evidence = log_evidence(logits.double(), log_prior)
            apart = _apart(self.each(embeddings, logits)[1].double())
        found = fitted(
            lambda point: _scores(evidence, apart, log_prior, point), _START, _BOUNDS, labels, weights.double()
        )
        with torch.no_grad():
            self.coefficients.copy_(found)
        return True


def _apart(places: Float[Tensor, "t n d"]) -> Float[Tensor, "t n n"]:
    """Return the squared distances of the instances of a tuple."""
    squares = places.square().sum(-1)
    return (squares[:, :, None] + squares[:, None] - 2 * places @ places.mT).clamp_min(0)


def _scores(evidence: Tensor, apart: Tensor, log_prior: Tensor, coefficients: Tensor) -> Float[Tensor, "t n c"]:
    alike = (-apart / (2 * (2 * coefficients[2]).exp())).exp()
    others = alike - torch.diag_embed(alike.diagonal(dim1=1, dim2=2))
    among = others.cumsum(1).mT  # [t, i, k]: how much of the first k others is like i
    weights = (1 / (1 + coefficients[1].sigmoid() * among)).mT.tril()  # [t, k, i]
    return log_prior + coefficients[0].exp() * (weights @ evidence)


def build(config: Config, shape: SetShape) -> NoveltyPool:
    """Build a novelty pool."""
    del config
    return NoveltyPool(shape)
