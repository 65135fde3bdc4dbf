"""Instance temperature is the log-pool with a weight for each instance, read from its embedding.

aggregators: [{name: instance_temperature, bound: 4.0}]
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    normalize,
)
from sharedlabel.aggregators._pool import log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the instance temperature.

    Args:
        hidden: width of the network that reads an instance, units (ours).
        dropout: fraction of its hidden units dropped in training, in [0, 1) (ours).
        bound: largest weight of an instance, and the inverse of the smallest; above 1 (ours).
    """

    hidden: Width = 32
    dropout: Dropout = 0.2
    bound: Annotated[float, Field(gt=1, le=1_000_000)] = 10.0


SPACE = {"hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class InstanceTemperature(SharingAggregator):
    """Log-posterior log p(y) + sum_i tau(h_i) (log p(y | x_i) - log p(y)), with tau in (1 / bound, bound).

    tau is a network on h and log p that starts at 1, the log-pool. It can tell good instances from bad ones, but
    leaves every instance's order of the labels as it is. Cost: O(n).

    Args:
        config: width, dropout and bound.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Sample-dependent temperatures: Joy et al., "Sample-dependent Adaptive Temperature Scaling for Improved
        Calibration" (2023), within a sum over instances.
    """

    permutation_invariant = True
    log_prior: Tensor

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.limit = math.log(config.bound)
        self.register_buffer("log_prior", shape.log_prior.clone())
        self.standardize = Standardize(shape)
        self.read = nn.Sequential(
            nn.Linear(shape.embedding_dim + shape.num_classes, config.hidden), nn.ReLU(), nn.Dropout(config.dropout)
        )
        self.score = nn.Linear(config.hidden, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the weighed evidence of each instance."""
        evidence = log_evidence(logits, self.log_prior)
        return (self.weights(embeddings, logits).to(evidence.dtype) * evidence,)

    def together(self, weighed: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.log_prior + weighed.cumsum(1))

    def weights(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> Float[Tensor, "*b 1"]:
        """Return tau of every instance."""
        score: Tensor = self.score(self.read(instance_features(self.standardize(embeddings), logits)))
        return (self.limit * (score / self.limit).tanh()).exp()


def build(config: Config, shape: SetShape) -> InstanceTemperature:
    """Build an instance temperature."""
    return InstanceTemperature(config, shape)
