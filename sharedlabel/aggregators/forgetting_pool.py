"""The forgetting pool is a log-pool in which every further instance fades what came before."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._fitted import FittedPool
from sharedlabel.aggregators._recurrence import Recurrence
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

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__(log_prior)
        self.fade = Fade()

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        (evidence,), kept = seen, coefficients[1:].sigmoid()
        faded: Tensor = self.fade(torch.cat([evidence, kept.to(evidence.dtype).expand(*evidence.shape[:2], 1)], dim=-1))
        return log_prior + coefficients[0].exp() * faded


class Fade(Recurrence):
    """The sum of what came, of which a share is kept at every step; that share stands beside each value."""

    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return a sum of nothing."""
        return [torch.zeros_like(driven[:, 0, :-1])]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t c"]]:
        """Fade, and add what comes."""
        faded = driven[:, -1:] * state[0] + driven[:, :-1]
        return [faded], faded


def build(config: Config, shape: SetShape) -> ForgettingPool:
    """Build a forgetting pool."""
    del config
    return ForgettingPool(shape.log_prior)
