"""The forgetting pool is a log-pool in which every further instance fades what came before."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import prefix_counts
from sharedlabel.aggregators._fitted import FittedPool
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The forgetting pool has no options."""


class ForgettingPool(FittedPool):
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
    START = (0.0, 4.0)  # the log-pool, but for a fiftieth that fades
    BOUNDS = ((-5.0, 5.0), (-5.0, 12.0))

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        (evidence,) = seen
        counts = prefix_counts(evidence)
        since = counts - counts.T  # [k, i], instances that came after i
        kept = (since.clamp_min(0) * nn.functional.logsigmoid(coefficients[1])).exp().tril()
        return log_prior + coefficients[0].exp() * (kept @ evidence)


def build(config: Config, shape: SetShape) -> ForgettingPool:
    """Build a forgetting pool."""
    del config
    return ForgettingPool(shape.log_prior)
