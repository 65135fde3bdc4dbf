"""The log-pool is Bayes' rule for instances that are independent given the label."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.aggregators._pool import pooled
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The log-pool has no options."""


class LogPool(Aggregator):
    """Sum the instances' log-probabilities and correct for counting the prior k times.

    Exact when instances are independent given the label and their posteriors are right.

    Args:
        log_prior: `[c]`, natural log.
    """

    permutation_invariant = True
    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"]) -> None:
        super().__init__()
        self.register_buffer("log_prior", log_prior.clone())

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return sum log p(y | x_i) - (k - 1) log p(y), normalised, after every prefix."""
        del embeddings
        return pooled(logits, self.log_prior)


def build(config: Config, shape: SetShape) -> LogPool:
    """Build a log-pool."""
    del config
    return LogPool(shape.log_prior)
