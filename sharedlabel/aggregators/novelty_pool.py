"""The novelty pool counts an instance the less, the more like the others of its tuple it looks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import Standardize, widen
from sharedlabel.aggregators._fitted import FittedPool
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The novelty pool has no options."""


class NoveltyPool(FittedPool):
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
    START = (0.0, -4.0, 0.0)  # the log-pool, but for a fiftieth that is shared
    BOUNDS = ((-5.0, 5.0), (-12.0, 12.0), (-4.0, 4.0))

    def __init__(self, shape: SetShape) -> None:
        super().__init__(shape.log_prior)
        self.standardize = Standardize(shape)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, ...]:
        """Return the evidence of each instance, and its place."""
        places = widen(self.standardize(embeddings))
        return *super().each(embeddings, logits), places / places.shape[-1] ** 0.5

    def seen(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Return the evidence, and the squared distances `[t n n]` of the instances of a tuple."""
        evidence, places = parts
        squares = places.square().sum(-1)
        return evidence, (squares[:, :, None] + squares[:, None] - 2 * places @ places.mT).clamp_min(0)

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        evidence, apart = seen
        alike = (-apart / (2 * (2 * coefficients[2]).exp())).exp()
        others = alike - torch.diag_embed(alike.diagonal(dim1=1, dim2=2))
        among = others.cumsum(1).mT  # [t, i, k]: how much of the first k others is like i
        weights = (1 / (1 + coefficients[1].sigmoid() * among)).mT.tril()  # [t, k, i]
        return log_prior + coefficients[0].exp() * (weights @ evidence)


def build(config: Config, shape: SetShape) -> NoveltyPool:
    """Build a novelty pool."""
    del config
    return NoveltyPool(shape)
