"""A log-pool that counts further instances less, as they may resemble the first ones."""

from dataclasses import dataclass

import torch

from sharedlabel.aggregators import Aggregator, normalize, prefix_counts


@dataclass(frozen=True)
class Config:
    """Options.

    Args:
        caution: 0 adds the evidence of all instances up, 1 averages it.
    """

    caution: float = 0.5


class CautiousPool(Aggregator):
    """log p(y) + k^-caution * sum over the first k instances of (log p(y given the instance) - log p(y))."""

    permutation_invariant = True

    def __init__(self, caution: float, log_prior: torch.Tensor) -> None:
        super().__init__()
        self.caution = caution
        self.register_buffer("log_prior", log_prior)

    def forward(self, embeddings, logits):
        """Return the log-posterior after every prefix, [t n c]."""
        evidence = (normalize(logits) - self.log_prior).cumsum(1)
        return normalize(self.log_prior + evidence / prefix_counts(evidence) ** self.caution)


def build(config, shape):
    """Build the pool; it has nothing to train."""
    return CautiousPool(config.caution, shape.log_prior)
