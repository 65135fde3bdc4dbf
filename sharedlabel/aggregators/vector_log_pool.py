"""The vector log-pool has one weight and one bias per label, fitted on training tuples."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sharedlabel.aggregators._linear_pool import LinearPool
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The vector log-pool has no options."""


class VectorLogPool(LinearPool):
    """Log-posterior log p(y) + sum_i (w_y evidence_i(y) + b_y), evidence = log p(y | x_i) - log p(y).

    Cost: O(n c), no products.

    Args:
        config: no options.
        shape: the prior.

    Reference:
        Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks" (2017), vector scaling, on
        log-probabilities of a tuple instead of logits of one image.
    """

    def __init__(self, config: Config, shape: SetShape) -> None:
        del config
        strengths = torch.zeros(2 * shape.num_classes, dtype=torch.float64)
        super().__init__(shape.log_prior, torch.ones_like(shape.log_prior), strengths)


def build(config: Config, shape: SetShape) -> VectorLogPool:
    """Build a vector log-pool."""
    return VectorLogPool(config, shape)
