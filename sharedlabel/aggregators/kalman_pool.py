"""The Kalman pool tracks the evidence for each label as a value that drifts and is measured with noise."""

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
    """The Kalman pool has no options."""


class KalmanPool(FittedPool):
    """Log-posterior log p(y) + a z_k, z_k the Kalman estimate of a random walk that evidence_k measures.

    The gain is K = P / (P + r) for the variance P of the estimate, 1 at first, and r of the noise; then z moves by
    K (evidence - z), and P becomes (1 - K) P + q for the drift q. With much noise evidence adds up, with little it is
    averaged, and with drift the past fades. Scale, r and q are fitted on training tuples. Cost: O(n c), no products.

    Args:
        log_prior: `[c]`, natural log.

    Reference:
        Kalman, "A New Approach to Linear Filtering and Prediction Problems" (1960), on the log-odds of labels.
    """

    permutation_invariant = False
    START = (4.0, 4.0, -8.0)  # noise of e^4, so that evidence adds up, a scale to match, and as good as no drift
    BOUNDS = ((-6.0, 10.0), (-6.0, 10.0), (-12.0, 4.0))

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__(log_prior)
        self.filter = Filter()

    def scores(
        self, coefficients: Float[Tensor, "p"], log_prior: Float[Tensor, "c"], *seen: Tensor
    ) -> Float[Tensor, "t n c"]:
        """Return unnormalised log-posteriors after every prefix."""
        (evidence,), values = seen, coefficients.exp()
        variances = values[1:].to(evidence.dtype).expand(*evidence.shape[:2], 2)
        estimates: Tensor = self.filter(torch.cat([evidence, variances], dim=-1))
        return log_prior + values[0] * estimates


class Filter(Recurrence):
    """The estimate of a random walk after each measurement; the variances of noise and drift stand beside these."""

    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return an estimate of 0, and its variance of 1."""
        return [torch.zeros_like(driven[:, 0, :-2]), torch.ones_like(driven[:, 0, :1])]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t c"]]:
        """Move the estimate towards a measurement."""
        (estimate, variance), (measured, noise, drift) = state, (driven[:, :-2], driven[:, -2:-1], driven[:, -1:])
        gain = variance / (variance + noise)
        estimate = estimate + gain * (measured - estimate)
        return [estimate, (1 - gain) * variance + drift], estimate


def build(config: Config, shape: SetShape) -> KalmanPool:
    """Build a Kalman pool."""
    del config
    return KalmanPool(shape.log_prior)
