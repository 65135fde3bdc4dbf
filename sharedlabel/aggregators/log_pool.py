"""The log-pool is Bayes' rule for instances that are independent given the label."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._pool import log_evidence, summed
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The log-pool has no options."""


class LogPool(SharingAggregator):
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

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the evidence of each instance."""
        del embeddings
        return (log_evidence(logits, self.log_prior),)

    def together(self, evidence: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return sum log p(y | x_i) - (k - 1) log p(y), normalised, after every prefix."""
        return summed(evidence, self.log_prior)


def build(config: Config, shape: SetShape) -> LogPool:
    """Build a log-pool."""
    del config
    return LogPool(shape.log_prior)
