"""Calibration: one temperature per prefix length, expected calibration error, negative log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.logs import log_normalize
from sharedlabel.metrics import _checks
from sharedlabel.metrics._temperature import Evidence, anchors, search, separate
from sharedlabel.metrics._weights import evenness, independent_tuples, normalized, weighted_mean
from sharedlabel.metrics.information import log2_posterior_of_label
from sharedlabel.types import Tuples

BINS = 15


def fit_temperature(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | None = None,
    sizes: Sequence[int] | None = None,
    independent: Float[Tensor, "n"] | None = None,
) -> Float[Tensor, "n"]:
    """Fit one temperature per tuple size by penalised maximum likelihood, all sizes together.

    Sizes with few independent tuples follow those with many: log T is smooth over log n (`_temperature`). It is fitted
    for 1, 2, 4, ... and both ends, and linear in log n between. Multiplying all log-posteriors by a factor multiplies
    every T by it, so calibrated posteriors do not depend on the factor.

    Args:
        log_posterior: log-posterior on validation, natural log, finite; not floored.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.
        sizes: instances after which each column is the posterior, different ones; 1, 2, 3, ... if None.
        independent: how many independent tuples each column is worth (`independent_tuples`); if None, tuples share no
            instances.

    Returns:
        T of each size; above 1 softens. 1 where all posteriors are uniform.

    Raises:
        DataError: the log-posterior is not finite.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks" (2017); the penalty is ours.
    """
    _checks.scored(log_posterior, labels, weights)
    if not bool(log_posterior.isfinite().all()):
        raise DataError("expected finite log-posteriors, got NaN or infinity; check the aggregator and its features")
    columns, mass = log_posterior.shape[1], normalized(labels, weights)
    every = list(sizes or range(1, columns + 1))
    _checks.shape("log-posteriors", log_posterior, "t n c", n=len(every))
    chosen = anchors(every)
    at = torch.tensor([every.index(size) for size in chosen])
    count = (torch.full((columns,), len(labels) * evenness(mass)) if independent is None else independent).double()[at]
    scores = log_posterior.double()[:, at]
    scores = scores - scores.amax(dim=2, keepdim=True)
    scale = float(mass @ -scores.mean(dim=(1, 2)))
    if scale == 0:
        return torch.ones(columns, dtype=torch.float64)
    scores /= scale
    index = labels[:, None, None].expand(-1, len(chosen), 1)
    n = torch.tensor(chosen, dtype=torch.float64)
    target = weighted_mean(scores.gather(2, index).squeeze(2), mass)
    theta = search(Evidence(scores, target, mass, count * separate(n)), n)
    between = np.interp(np.log(every), np.log(chosen), theta.numpy())
    return scale * torch.from_numpy(-between).exp()


def temperatures(
    log_posterior: Float[Tensor, "t n c"], drawn: Tuples, sizes: Sequence[int], clusters: Int64[Tensor, "N"] | None
) -> Float[Tensor, "n"]:
    """Fit one temperature per tuple size to the log-posteriors of validation tuples (`fit_temperature`).

    Args:
        log_posterior: of every tuple of every partition after each size, not floored.
        drawn: the tuples.
        sizes: instances after which each column is the posterior.
        clusters: group of each instance, for tuples cut inside groups; None for instances drawn independently.

    Raises:
        DataError: the log-posterior is not finite.
    """
    independent = independent_tuples(drawn, sizes, clusters)
    return fit_temperature(log_posterior, drawn.labels.flatten(), drawn.weights.flatten(), sizes, independent)


def calibrate_logits(
    logits: Float[Tensor, "*batch c"], log_correction: Float[Tensor, "c"], temperature: float
) -> Float[Tensor, "*batch c"]:
    """Return logits whose softmax is the calibrated posterior of single instances under the prior of tuples.

    Args:
        logits: of the backbone.
        log_correction: log of the prior of tuples over the class frequencies that the backbone was trained on.
        temperature: one for all instances; above 1 softens.
    """
    _checks.number("logits", logits)
    _checks.array("log corrections", log_correction, "c", c=logits.shape[-1])
    _checks.positive("a temperature", temperature)
    return log_normalize((logits + log_correction) / temperature)


def apply_temperature(log_posterior: Float[Tensor, "t n c"], temperature: Float[Tensor, "n"]) -> Float[Tensor, "t n c"]:
    """Divide a log-posterior by the temperature of its prefix length and normalise it, in float64.

    Args:
        log_posterior: natural log, not floored.
        temperature: T of each prefix length, above 0.

    Raises:
        DataError: a temperature that is not a positive number.
    """
    _checks.posterior(log_posterior)
    _checks.shape("temperatures", temperature, "n", n=log_posterior.shape[1])
    if not bool((temperature.isfinite() & (temperature > 0)).all()):
        raise DataError(f"expected temperatures above 0, got {temperature.tolist()}; fit them on validation")
    return log_normalize(log_posterior.double() / temperature[:, None])


def negative_log_likelihood(
    log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None = None
) -> Float[Tensor, "n"]:
    """Return the mean of -log2 of the label's posterior, in bits.

    Args:
        log_posterior: normalised, natural log; floor it first (`floor_posterior`).
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.
    """
    return -weighted_mean(log2_posterior_of_label(log_posterior, labels), normalized(labels, weights))


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
    _checks.number("a number of bins", bins, 1)
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


def expected_calibration_error(
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
