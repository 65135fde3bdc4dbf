"""The log-pool, and the temperature that corrects its confidence."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import mean_loss, normalize, prefix_counts, prefix_loss
from sharedlabel.errors import TrainingError
from sharedlabel.logs import log_normalize

# Of a0 and a1 in b(k) = exp(a0 + a1 log k): one instance may be off by a factor of e^5 = 148; a1 = 0 adds evidence up,
# a1 = -1 averages it, and outside [-2, 1] no dependence between instances explains it.
LIMITS = ((-5.0, 5.0), (-2.0, 1.0))


def log_evidence(logits: Float[Tensor, "*b c"], log_prior: Float[Tensor, "c"]) -> Float[Tensor, "*b c"]:
    """Return what each instance adds to the log-posterior: log p(y | x) - log p(y), in nats."""
    return normalize(logits) - log_prior


def pooled(logits: Float[Tensor, "t n c"], log_prior: Float[Tensor, "c"]) -> Float[Tensor, "t n c"]:
    """Return sum log p(y | x_i) - (k - 1) log p(y), normalised, after every prefix: the log-pool."""
    return summed(log_evidence(logits, log_prior), log_prior)


def summed(evidence: Float[Tensor, "t n c"], log_prior: Float[Tensor, "c"]) -> Float[Tensor, "t n c"]:
    """Return the log-pool of evidence after every prefix."""
    return normalize(log_prior + evidence.cumsum(1))


class TemperedPool(nn.Module):
    """Scores log p(y) + b(k) * sum of the evidence of k instances, with b(k) = exp(a0 + a1 log k).

    It starts as the plain log-pool, a0 = a1 = 0.

    Args:
        log_prior: `[c]`, natural log.
    """

    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())
        self.coefficients = nn.Parameter(torch.zeros(2, dtype=log_prior.dtype))

    def evidence(self, logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b c"]:
        """Return the evidence of each instance, in nats."""
        return log_evidence(logits, self.log_prior)

    def forward(self, evidence: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Pool evidence into unnormalised log-posteriors after every prefix."""
        offset, slope = self.coefficients.unbind()
        temperature = (offset + slope * prefix_counts(evidence).log()).exp()
        return self.log_prior + temperature * evidence.cumsum(1)

    def fit(
        self,
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> None:
        """Set a0 and a1 to the minimum of the weighted mean negative log-likelihood over all prefixes."""
        with torch.no_grad():
            sums = log_evidence(logits.double(), self.log_prior.double()).cumsum(1)
            coefficients = fit_coefficients(sums, self.log_prior.double(), labels, weights.double())
            self.coefficients.copy_(torch.from_numpy(coefficients))


def fit_coefficients(
    sums: Float64[Tensor, "t n c"],
    log_prior: Float64[Tensor, "c"],
    labels: Int64[Tensor, "t"],
    weights: Float64[Tensor, "t"] | Float64[Tensor, "t n"],
) -> Float64[np.ndarray, "2"]:
    """Fit a0 and a1 by L-BFGS-B within `LIMITS`, with a standard normal prior that weighs as much as one tuple.

    The prior keeps the fit finite on tuples that are all labelled correctly, where the likelihood grows without end.

    Args:
        sums: evidence summed over each prefix, nats.
        log_prior: natural log.
        labels: label of each tuple.
        weights: relative weight of each tuple, or of each at every prefix.

    Raises:
        TrainingError: the evidence is not finite.
    """
    from scipy.optimize import minimize

    check_finite(sums)
    shares = weights / weights.sum(0)
    log_counts = prefix_counts(sums).squeeze(1).log()

    def objective(point: Float64[np.ndarray, "2"]) -> tuple[float, Float64[np.ndarray, "2"]]:
        coefficients = torch.from_numpy(point).to(sums.device)
        temperature = (coefficients[0] + coefficients[1] * log_counts).exp()
        log_posterior = log_normalize(log_prior + temperature[:, None] * sums)
        loss = mean_loss(prefix_loss(log_posterior, labels), shares).mean()
        # d loss / d log b(k) = b(k) * (expected sum under the posterior - sum of the label)
        excess = (log_posterior.exp() * sums).sum(-1) + prefix_loss(sums, labels)
        slopes = temperature * mean_loss(excess, shares) / len(log_counts)
        gradient = torch.stack([slopes.sum(), (slopes * log_counts).sum()])
        loss = loss + coefficients.square().sum() / (2 * len(labels))
        gradient = gradient + coefficients / len(labels)
        return float(loss), gradient.cpu().numpy()

    result = minimize(objective, np.zeros(2), jac=True, method="L-BFGS-B", bounds=LIMITS)
    return np.asarray(result.x, dtype=np.float64)


def check_finite(sums: Float64[Tensor, "t n c"]) -> None:
    """Refuse summed evidence that is not finite.

    Raises:
        TrainingError: says how many values are not.
    """
    broken = int((~sums.isfinite()).sum())
    if broken:
        raise TrainingError(
            f"expected finite log-probabilities and prior, got {broken} values that are not, of {sums.numel()}; "
            "check the backbone's logits for NaN or Inf and that every class has instances"
        )
