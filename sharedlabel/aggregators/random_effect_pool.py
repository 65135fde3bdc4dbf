"""The random-effect pool adds up evidence of instances that share a part of their errors: n of them are worth fewer."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import prefix_counts
from sharedlabel.aggregators._fitted import FittedPool
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The random-effect pool has no options."""


class RandomEffectPool(FittedPool):
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
    START = (0.0, -4.0)  # the log-pool, but for a correlation of .02
    BOUNDS = ((-5.0, 5.0), (-12.0, 12.0))

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        (evidence,) = seen
        scale, correlation = coefficients[0].exp(), coefficients[1].sigmoid()
        return log_prior + scale * evidence.cumsum(1) / (1 + (prefix_counts(evidence) - 1) * correlation)


def build(config: Config, shape: SetShape) -> RandomEffectPool:
    """Build a random-effect pool."""
    del config
    return RandomEffectPool(shape.log_prior)
