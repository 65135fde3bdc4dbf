"""n-accuracy: how often the most probable label after n instances is right."""

from __future__ import annotations

from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sharedlabel.metrics import _checks
from sharedlabel.metrics._weights import normalized, weighted_mean


def correct(log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Bool[Tensor, "t n"]:
    """Tell where the most probable label is right; ties go to the lowest class index.

    Args:
        log_posterior: log-posterior after each prefix; need not be normalised.
        labels: class index of each tuple.
    """
    _checks.scored(log_posterior, labels)
    return log_posterior.argmax(dim=2) == labels[:, None]


def n_accuracy(
    log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None = None
) -> Float[Tensor, "n"]:
    """Return the share of tuples whose most probable label is right, for every prefix.

    Args:
        log_posterior: log-posterior after each prefix; need not be normalised.
        labels: class index of each tuple.
        weights: weight of each tuple, on any scale; equal if None.

    Returns:
        Share in [0, 1]; entry k-1 is the accuracy after k instances.

    >>> import torch
    >>> n_accuracy(torch.tensor([[[0.4, 0.6], [0.5, 0.5]]]).log(), torch.tensor([0]))
    tensor([0., 1.], dtype=torch.float64)
    """
    return weighted_mean(correct(log_posterior, labels), normalized(labels, weights))
