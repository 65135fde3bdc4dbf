"""The matrix log-pool adds up log-probabilities that a matrix, fitted on training tuples, has mapped.

aggregators: [{name: matrix_log_pool, off_diagonal: 1.0}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sharedlabel.aggregators._linear_pool import LinearPool
from sharedlabel.config.schema import NonNegativeFloat
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the matrix log-pool.

    Args:
        off_diagonal: penalty of the mean squared off-diagonal value of the matrix (lambda of Kull et al.), in nats, at
            least 0.
        bias: penalty of the mean squared bias (mu of Kull et al.), in nats, at least 0.
    """

    off_diagonal: NonNegativeFloat = 0.1
    bias: NonNegativeFloat = 0.1


class MatrixLogPool(LinearPool):
    """Log-posterior log p(y) + sum_i (W evidence_i + b), evidence = log p(. | x_i) - log p.

    W learns which labels are taken for which; the off-diagonal and intercept penalty (ODIR) keeps it near a diagonal.
    Cost: O(n c^2).

    Args:
        config: strengths of the penalties.
        shape: the prior.

    Reference:
        Kull et al., "Beyond temperature scaling: Obtaining well-calibrated multiclass probabilities with Dirichlet
        calibration" (2019), of a tuple instead of one image.
    """

    def __init__(self, config: Config, shape: SetShape) -> None:
        identity = torch.eye(shape.num_classes, dtype=shape.log_prior.dtype, device=shape.log_prior.device)
        super().__init__(shape.log_prior, identity, _strengths(config, shape.num_classes))


def _strengths(config: Config, classes: int) -> Float64[Tensor, "p"]:
    """Return twice the penalty of each value: of W row by row, then of b."""
    weight = torch.full((classes, classes), 2 * config.off_diagonal / (classes * (classes - 1)), dtype=torch.float64)
    bias = torch.full((classes,), 2 * config.bias / classes, dtype=torch.float64)
    return torch.cat([weight.fill_diagonal_(0).flatten(), bias])


def build(config: Config, shape: SetShape) -> MatrixLogPool:
    """Build a matrix log-pool."""
    return MatrixLogPool(config, shape)
