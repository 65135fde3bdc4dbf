"""The mean vote, the linear pool, is the average of the instances' probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import normalize, prefix_counts
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The mean vote has no options."""


class MeanVote(SharingAggregator):
    """Average the probabilities of the instances seen so far.

    A mean says nothing about how much evidence went into it, so it is far under-confident for many instances.
    """

    permutation_invariant = True

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the log-probabilities of each instance."""
        del embeddings
        return (normalize(logits),)

    def together(self, log_probabilities: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log of the mean probability after every prefix."""
        return normalize(log_probabilities.logcumsumexp(1) - prefix_counts(log_probabilities).log())


def build(config: Config, shape: SetShape) -> MeanVote:
    """Build a mean vote."""
    del config, shape
    return MeanVote()
