"""What posteriors tell of the label, in one call: information gain in bits, and as a share of the label entropy."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.metrics import _checks
from sharedlabel.metrics._weights import normalized
from sharedlabel.metrics.information import (
    floor_posterior,
    label_entropy,
    log2_posterior_of_label,
    posterior_gain,
    share_of_entropy,
)


def information_gain(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | None = None,
    log_prior: Float[Tensor, "c"] | None = None,
) -> Float[Tensor, "n"]:
    """Return what the label's posterior tells of the label, for every prefix: H(Y) - mean(-log2 p(y)).

    It is a lower bound on the mutual information of the label and the instances, and negative where the posterior is
    worse than the prior. Posteriors are normalised, and mixed with a millionth of the uniform distribution first
    (`floor_posterior`), so that one label that is thought impossible does not cost everything; do not floor them
    before. They are taken as they are otherwise: to calibrate them, fit a temperature on other tuples
    (`fit_temperature`, `apply_temperature`).

    Args:
        log_posterior: natural log of p(y given x_1..x_k) after each prefix k; a tensor, normalised or not.
        labels: class index of each tuple.
        weights: weight of each tuple, on any scale; equal if None.
        log_prior: natural log of the prior that posteriors start from; the (weighted) frequencies of the labels if
            None.

    Returns:
        Bits, in (-inf, H(Y)]; entry k-1 is the gain after k instances.

    Raises:
        DataError: arguments that do not belong together, or probabilities in the place of their logarithms.

    Reference:
        Barber & Agakov, "The IM Algorithm: A Variational Approach to Information Maximization" (2003).

    >>> posterior = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])
    >>> information_gain(posterior.log(), torch.tensor([0, 1])).round(decimals=4)
    tensor([0., 1.], dtype=torch.float64)
    """
    gain, _ = _gain_and_entropy(log_posterior, labels, weights, log_prior)
    return gain


def relative_information(
    log_posterior: Float[Tensor, "t n c"],
    labels: Int64[Tensor, "t"],
    weights: Float[Tensor, "t"] | None = None,
    log_prior: Float[Tensor, "c"] | None = None,
) -> Float[Tensor, "n"]:
    """Return the relative information (RI) of posteriors, for every prefix: the information gain / the label entropy.

    Args:
        log_posterior: as for `information_gain`.
        labels: class index of each tuple.
        weights: as for `information_gain`.
        log_prior: as for `information_gain`.

    Returns:
        A share in (-inf, 1]: 1 where the label is known for sure, 0 where no more is known than the prior says.

    Raises:
        DataError: as for `information_gain`, or only one label occurs, so that there is nothing to know.

    >>> posterior = torch.tensor([[[0.5, 0.5], [1.0, 0.0]], [[0.5, 0.5], [0.0, 1.0]]])
    >>> relative_information(posterior.log(), torch.tensor([0, 1])).round(decimals=4)
    tensor([0., 1.], dtype=torch.float64)
    """
    return share_of_entropy(*_gain_and_entropy(log_posterior, labels, weights, log_prior))


def entropy_of(counts: Float[Tensor, "c"]) -> float:
    """Return the entropy of labels in bits from how often each occurs.

    Args:
        counts: number or weight of each label, at least 0 and not all 0.

    >>> entropy_of(torch.tensor([5.0, 5.0, 0.0]))
    1.0
    """
    _checks.array("counts of labels", counts, "c", 0)
    _checks.positive("a number of labels", counts.sum())
    return label_entropy((counts.double() / counts.double().sum()).log())


def _gain_and_entropy(
    log_posterior: Tensor, labels: Tensor, weights: Tensor | None, log_prior: Tensor | None
) -> tuple[Tensor, float]:
    _checks.scored(log_posterior, labels, weights)
    classes = log_posterior.shape[2]
    if log_prior is None:
        entropy = entropy_of(torch.bincount(labels, normalized(labels, weights), minlength=classes))
    else:
        _checks.shape("log-priors", log_prior, "c", c=classes)
        entropy = label_entropy(log_prior)
    return posterior_gain(log2_posterior_of_label(floor_posterior(log_posterior), labels), weights, entropy), entropy
