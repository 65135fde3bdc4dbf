"""The Kalman pool tracks the evidence for each label as a value that drifts and is measured with noise."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import normalize
from sharedlabel.aggregators._fitted import fitted, plainly
from sharedlabel.aggregators._pool import log_evidence
from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape

_START = (4.0, 4.0, -8.0)  # noise of e^4, so that evidence adds up, as good as no drift, and a scale to match
_BOUNDS = ((-6.0, 10.0), (-6.0, 10.0), (-12.0, 4.0))


@dataclass(frozen=True)
class Config:
    """The Kalman pool has no options."""


class KalmanPool(SharingAggregator):
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
    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())
        self.filter = Filter(nn.Parameter(torch.tensor(_START, dtype=log_prior.dtype)))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the evidence of each instance."""
        del embeddings
        return (log_evidence(logits, self.log_prior),)

    def together(self, evidence: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.log_prior + self.filter(evidence))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit scale, noise and drift on all prefixes; there is nothing left to train."""
        del embeddings
        with plainly():
            log_prior = self.log_prior.double()
            evidence = log_evidence(logits.double(), log_prior)

        def scores(point: Tensor) -> Tensor:
            filtered: Tensor = Filter(point)(evidence)
            return log_prior + filtered

        found = fitted(scores, _START, _BOUNDS, labels, weights.double())
        with torch.no_grad():
            self.filter.coefficients.copy_(found)
        return True


class Filter(Recurrence):
    """The scaled estimate of a random walk after each measurement.

    Args:
        coefficients: logarithms of the scale, and of the variances of noise and drift.
    """

    def __init__(self, coefficients: Tensor) -> None:
        super().__init__()
        self.coefficients = coefficients

    def start(self, driven: Float[Tensor, "t n c"]) -> list[Tensor]:
        """Return an estimate of 0, and its variance of 1."""
        return [torch.zeros_like(driven[:, 0]), torch.ones_like(driven[:, 0, :1])]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t c"]) -> tuple[list[Tensor], Float[Tensor, "t c"]]:
        """Move the estimate towards a measurement."""
        scale, noise, drift = self.coefficients.exp().to(driven.dtype).unbind()
        estimate, variance = state
        gain = variance / (variance + noise)
        estimate = estimate + gain * (driven - estimate)
        return [estimate, (1 - gain) * variance + drift], scale * estimate


def build(config: Config, shape: SetShape) -> KalmanPool:
    """Build a Kalman pool."""
    del config
    return KalmanPool(shape.log_prior)
