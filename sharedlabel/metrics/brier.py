"""The Brier score: the squared distance of a posterior from the label."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.metrics import _checks
from sharedlabel.metrics._scored import Scored
from sharedlabel.metrics._weights import normalized, weighted_mean


def brier_score(
    log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None = None
) -> Float[Tensor, "n"]:
    """Return the mean squared distance between posterior and label, for every prefix.

    It is proper: no posterior scores better on average than the true one. Unlike the negative log-likelihood it stays
    finite where the label is thought impossible.

    Args:
        log_posterior: normalised, natural log.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.

    Returns:
        Sum over classes of (p - [y = class])^2, in [0, 2]; 0 for a sure and right posterior.

    Reference:
        Brier, "Verification of Forecasts Expressed in Terms of Probability" (1950).

    >>> import torch
    >>> brier_score(torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]).log(), torch.tensor([0, 1]))
    tensor([0.2500], dtype=torch.float64)
    """
    return weighted_mean(squared_distance(log_posterior, labels), normalized(labels, weights))


def squared_distance(log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t n"]:
    """Return the squared distance between posterior and label of each tuple, for every prefix.

    Args:
        log_posterior: normalised, natural log.
        labels: class index of each tuple.

    Returns:
        Sum over classes of (p - [y = class])^2, in [0, 2].
    """
    _checks.scored(log_posterior, labels, normalised=True)
    posterior = log_posterior.double().exp()
    right = nn.functional.one_hot(labels, posterior.shape[2])[:, None]
    return (posterior - right).square().sum(dim=2)


def columns(scored: Scored) -> dict[str, Tensor]:
    """Return the column of rows: the Brier score after calibration."""
    return {"brier_score": brier_score(scored.calibrated, scored.labels, scored.weights)}
