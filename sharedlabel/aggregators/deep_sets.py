"""Deep Sets apply one network to every instance, pool its outputs and apply another one to the pool.

aggregators: [{name: deep_sets, pool: mean}]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    prefix_counts,
    widen,
)
from sharedlabel.aggregators._layers import CountedReadOut
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape

# By pool: the power of the count that the sum is divided by.
POWERS = {"mean": 1.0, "sum": 0.0, "rsqrt": 0.5}


@dataclass(frozen=True)
class Config:
    """Options of Deep Sets.

    Args:
        hidden: width of phi's two layers and of rho's hidden layer, units (ours).
        pool: `mean`, `sum`, or `rsqrt`, the sum divided by the square root of the number of instances.
        dropout: fraction of hidden units dropped in training, in [0, 1) (ours).
    """

    hidden: Width = 64
    pool: Literal["mean", "sum", "rsqrt"] = "sum"
    dropout: Dropout = 0.2


SPACE = {"hidden": (32, 64, 128), "dropout": (0.0, 0.2, 0.4)}


class DeepSets(SharingAggregator):
    """Log-posterior rho(pool_i phi(h_i, log p_i), log k), the pool a running sum. Cost: O(n).

    Args:
        config: widths, pool and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Zaheer et al., "Deep Sets" (2017), theorem 2; log k is ours.
    """

    permutation_invariant = True

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.power = POWERS[config.pool]
        self.standardize = Standardize(shape)
        self.phi = nn.Sequential(
            nn.Linear(shape.embedding_dim + shape.num_classes, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, config.hidden),
        )
        self.rho = CountedReadOut(config.hidden, config.hidden, shape.num_classes, config.dropout)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return phi of each instance."""
        return (widen(self.phi(instance_features(self.standardize(embeddings), logits))),)

    def together(self, outputs: Float[Tensor, "t n h"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        counts = prefix_counts(outputs)
        posterior: Tensor = self.rho(outputs.cumsum(1) / counts**self.power, counts)
        return posterior


def build(config: Config, shape: SetShape) -> DeepSets:
    """Build Deep Sets."""
    return DeepSets(config, shape)
