"""The mean logit is the geometric mean of the instances' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import normalize, prefix_counts
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The mean logit has no options."""


class MeanLogit(SharingAggregator):
    """Posterior softmax(mean z_i), the logarithmic pool with weights 1 / k. Cost: O(n), no products.

    It orders labels like the log-pool under a uniform prior, but is only as sure as one instance.

    Reference:
        Genest & Zidek, "Combining Probability Distributions: A Critique and an Annotated Bibliography" (1986).
    """

    permutation_invariant = True

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the log-probabilities of each instance; a constant per instance changes no posterior."""
        del embeddings
        return (normalize(logits),)

    def together(self, log_probabilities: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the normalised mean log-probability after every prefix."""
        return normalize(log_probabilities.cumsum(1) / prefix_counts(log_probabilities))


def build(config: Config, shape: SetShape) -> MeanLogit:
    """Build a mean logit."""
    del config, shape
    return MeanLogit()
