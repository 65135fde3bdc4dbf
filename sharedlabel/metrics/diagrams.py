"""Reliability diagrams: how often the most probable label is right, by how sure the posterior is of it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.metrics import _checks
from sharedlabel.metrics._scored import Scored
from sharedlabel.metrics._weights import normalized

BINS = 15


class Reliability(NamedTuple):
    """A reliability diagram for every prefix length.

    Attributes:
        confidence: mean largest posterior of each bin; 0 in an empty bin.
        accuracy: share of right decisions in each bin; 0 in an empty bin.
        mass: share of the tuples in each bin.
    """

    confidence: Float[Tensor, "n bins"]
    accuracy: Float[Tensor, "n bins"]
    mass: Float[Tensor, "n bins"]


def bin_sums(
    log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"], bins: int
) -> Float[Tensor, "3 n bins"]:
    """Sum confidence, right decisions and mass over tuples, per bin of confidence.

    Args:
        log_posterior: normalised, natural log.
        labels: class index of each tuple.
        weights: weight of each tuple, on any scale.
        bins: number of bins of equal width, closed on the right, over [0, 1].
    """
    _checks.scored(log_posterior, labels, weights, normalised=True)
    _checks.whole("a number of bins", bins, 1)
    top, decision = log_posterior.double().max(dim=2)
    confidence = top.exp()
    right = (decision == labels[:, None]).double()
    index = ((confidence * bins).ceil().long() - 1).clamp(0, bins - 1)
    values = torch.stack([confidence, right, torch.ones_like(right)]) * weights.double()[:, None]  # [3, t, n]
    sums = values.new_zeros(3, right.shape[1], bins)
    return sums.scatter_add_(2, index.T.expand(3, -1, -1), values.transpose(1, 2))


def reliability_from_sums(sums: Float[Tensor, "3 n bins"]) -> Reliability:
    """Turn `bin_sums` into means per bin and the share of each bin."""
    _checks.array("sums", sums, "s n bins", 0, s=3)
    confidence, right, mass = sums
    filled = mass.where(mass > 0, 1.0)
    return Reliability(confidence / filled, right / filled, mass / mass.sum(dim=1, keepdim=True))


def reliability(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | None = None,
    bins: int = BINS,
) -> Reliability:
    """Return confidence against accuracy in bins of equal width.

    Args:
        log_posterior: normalised, natural log.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.
        bins: number of bins.
    """
    return reliability_from_sums(bin_sums(log_posterior, labels, normalized(labels, weights), bins))


def calibration_gap(diagram: Reliability) -> Float[Tensor, "n"]:
    """Return the mean distance of a reliability diagram from the diagonal."""
    for name, values in diagram._asdict().items():
        _checks.array(f"{name} of a reliability diagram", values, "n bins", 0, 1 + _checks.CLOSE)
    return (diagram.mass * (diagram.confidence - diagram.accuracy).abs()).sum(dim=1)


def calibration_error(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | None = None,
    bins: int = BINS,
) -> Float[Tensor, "n"]:
    """Return the expected calibration error of the top label, for every prefix.

    Args:
        log_posterior: normalised, natural log.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.
        bins: number of bins of equal width.

    Returns:
        Mean gap between confidence and accuracy, in [0, 1].

    Reference:
        Naeini, Cooper & Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
    """
    return calibration_gap(reliability(log_posterior, labels, weights, bins))


def columns(scored: Scored) -> dict[str, Tensor]:
    """Return the columns of rows: the expected calibration error, after and before calibration."""
    return {
        f"calibration_error{name}": calibration_gap(reliability(version, scored.labels, scored.weights))
        for name, version in scored.versions.items()
    }
