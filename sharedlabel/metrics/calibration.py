"""Calibration: one temperature per prefix length, expected calibration error, negative log-likelihood."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sharedlabel.errors import DataError
from sharedlabel.logs import log_normalize
from sharedlabel.metrics import _checks
from sharedlabel.metrics._scored import Scored
from sharedlabel.metrics._temperature import Evidence, anchors, mean, search, separate
from sharedlabel.metrics._weights import evenness, independent_tuples, normalized, weighted_mean, weights_at
from sharedlabel.metrics.information import floor_posterior, log2_posterior_of_label
from sharedlabel.types import Tuples


def fit_temperature(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | Float[Tensor, "t n"] | None = None,
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
        weights: weight of each tuple, or of each tuple at every size, 0 where it does not have so many instances; equal
            if None.
        sizes: instances after which each column is the posterior, different ones; 1, 2, 3, ... if None.
        independent: how many independent tuples each column is worth (`independent_tuples`); if None, tuples share no
            instances.

    Returns:
        T of each size; above 1 softens. 1 where all posteriors are uniform.

    Raises:
        DataError: the log-posterior is not finite, or sizes or numbers of tuples are not those of its columns.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks" (2017); the penalty is ours.
    """
    ragged = isinstance(weights, Tensor) and weights.ndim == 2 and weights.shape[1] == log_posterior.shape[1]
    _checks.scored(log_posterior, labels, None if ragged else weights)
    if ragged:
        _checks.array("weights", weights, "t n", 0, t=len(labels), n=log_posterior.shape[1])
    if not bool(log_posterior.isfinite().all()):
        raise DataError("expected finite log-posteriors, got NaN or infinity; check the aggregator and its features")
    columns, mass = log_posterior.shape[1], _mass(labels, weights)
    every = list(range(1, columns + 1) if sizes is None else sizes)
    if len(every) != columns or len(set(every)) != columns or min(every) < 1:
        raise DataError(f"expected {columns} different sizes, one for each column, got {every}; pass those")
    if independent is not None:
        _checks.array("independent tuples", independent, "n", n=columns)
        _checks.positive("a number of independent tuples", independent)
    chosen = anchors(every)
    among = torch.tensor([every.index(size) for size in chosen])
    if independent is None:
        independent = torch.tensor([len(labels) * evenness(own) for own in mass.T]).expand(columns)
    count, mass = independent.double()[among], mass if mass.shape[1] == 1 else mass[:, among]
    scores = log_posterior.double()[:, among]
    scores = scores - scores.amax(dim=2, keepdim=True)
    scale = float(mean(-scores.mean(dim=2), mass).mean())
    if scale == 0:
        return torch.ones(columns, dtype=torch.float64)
    scores /= scale
    index = labels[:, None, None].expand(-1, len(chosen), 1)
    n = torch.tensor(chosen, dtype=torch.float64)
    target = mean(scores.gather(2, index).squeeze(2), mass)
    scores = scores.permute(2, 0, 1).contiguous().permute(1, 2, 0)  # sums over classes, which are few, add whole rows
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
    _checks.prefixes(sizes, drawn.indices.shape[2])
    _checks.shape("log-posteriors", log_posterior, "t n c", t=drawn.labels.numel(), n=len(sizes))
    independent = independent_tuples(drawn, sizes, clusters)
    weights = weights_at(drawn, sizes).flatten(0, 1)
    weights = weights[:, 0] if weights.shape[1] == 1 else weights
    return fit_temperature(log_posterior, drawn.labels.flatten(), weights, sizes, independent)


def _mass(labels: Tensor, weights: Tensor | None) -> Float64[Tensor, "t #n"]:
    """Return weights that sum to 1 at every size; a column for all where they are the same."""
    if weights is None or weights.ndim == 1:
        return normalized(labels, weights)[:, None]
    return torch.stack([normalized(labels, own) for own in weights.T], dim=1)


def log_correction(prior: Float[Tensor, "c"], frequencies: Float[Tensor, "c"]) -> Float[Tensor, "c"]:
    """Return what moves logits from the class frequencies that a network was trained on to the prior of tuples.

    Args:
        prior: probability of each label among tuples.
        frequencies: share of each label among what the network was trained on, above 0.

    Returns:
        Natural log of prior over frequency, float32; `-inf` for a label that no tuple has.

    >>> log_correction(torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.8])).exp()
    tensor([2.5000, 0.6250])
    """
    _checks.array("a prior", prior, "c", 0)
    _checks.array("frequencies", frequencies, "c", 0, c=len(prior))
    _checks.positive("a frequency", frequencies)
    return (prior.log() - frequencies.log()).float()


def single_temperature(logits: Float[Tensor, "m c"], labels: Int64[Tensor, "m"], prior: Float[Tensor, "c"]) -> float:
    """Fit the temperature of single instances; all of a class together weigh its prior.

    Args:
        logits: class scores of each instance, corrected to the prior (`log_correction`).
        labels: class index of each.
        prior: probability of each label.

    Raises:
        DataError: logits are not finite, or a label or its prior means nothing.
    """
    _checks.array("logits", logits, "m c", c=len(prior))
    _checks.labels(labels, *logits.shape)
    weights = prior[labels] / torch.bincount(labels, minlength=len(prior))[labels]
    return float(fit_temperature(log_normalize(logits)[:, None], labels, weights)[0])


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
    """Return the mean of -log2 of the label's posterior, in bits, for every prefix.

    Posteriors are normalised, and mixed with a millionth of the uniform distribution first (`floor_posterior`), as
    `information_gain` does: one label that is thought impossible costs log2(c) + 20 bits, not infinitely many. Do not
    floor them before.

    Args:
        log_posterior: natural log, normalised or not.
        labels: class index of each tuple.
        weights: weight of each tuple; equal if None.

    >>> sure = torch.tensor([[[1.0, 0.0]], [[0.5, 0.5]]]).log()
    >>> negative_log_likelihood(sure, torch.tensor([0, 0])).round(decimals=4)  # 0 and 1 bit
    tensor([0.5000], dtype=torch.float64)
    >>> negative_log_likelihood(sure, torch.tensor([1, 0])).round(decimals=4)  # 20.9 and 1 bit
    tensor([10.9658], dtype=torch.float64)
    """
    _checks.scored(log_posterior, labels, weights)
    return _missing_bits(floor_posterior(log_posterior), labels, weights)


def _missing_bits(floored: Tensor, labels: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of -log2 of the label's posterior, of posteriors that are floored."""
    return -weighted_mean(log2_posterior_of_label(floored, labels), normalized(labels, weights))


def columns(scored: Scored) -> dict[str, Tensor]:
    """Return the columns of rows: the negative log-likelihood, after and before calibration."""
    return {
        f"negative_log_likelihood{name}": _missing_bits(version, scored.labels, scored.weights)
        for name, version in scored.versions.items()
    }
