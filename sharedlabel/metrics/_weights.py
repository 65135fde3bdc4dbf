"""Tuple weights: normalised, in float64."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from sharedlabel.metrics import _checks


def normalized(labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None) -> Float[Tensor, "t"]:
    """Return weights that sum to 1; equal ones when none are given."""
    _checks.weights(weights, labels.numel())
    if weights is None:
        return torch.full(labels.shape, 1 / max(labels.numel(), 1), dtype=torch.float64, device=labels.device)
    wide = weights.double()
    return wide / wide.sum()


def weighted_mean(values: Shaped[Tensor, "t n"], weights: Float[Tensor, "t"]) -> Float[Tensor, "n"]:
    """Return the mean over tuples under normalised weights."""
    return weights @ values.double()
