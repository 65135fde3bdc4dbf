"""In the max vote a label is as probable as in the instance that speaks for it most."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import normalize
from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """The max vote has no options."""


class MaxVote(SharingAggregator):
    """Posterior max_i p_i(y), renormalised. Cost: O(n), no products.

    Reference:
        Kittler, Hatef, Duin & Matas, "On Combining Classifiers" (1998), the max rule.
    """

    permutation_invariant = True

    def __init__(self) -> None:
        super().__init__()
        self.largest = Largest()

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the log-probabilities of each instance."""
        del embeddings
        return (normalize(logits),)

    def together(self, log_probabilities: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log of the renormalised largest probability after every prefix."""
        return normalize(self.largest(log_probabilities))


class Largest(Recurrence):
    """The largest value so far; ONNX has no operator for it, but can scan."""

    def start(self, driven: Float[Tensor, "t n c"]) -> list[Tensor]:
        """Return the lowest value of all."""
        return [torch.full_like(driven[:, 0], -torch.inf)]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t c"]) -> tuple[list[Tensor], Float[Tensor, "t c"]]:
        """Return the larger value."""
        largest = torch.maximum(state[0], driven)
        return [largest], largest

    def forward(self, inputs: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return what the steps put out, in one call."""
        return inputs.cummax(1).values


def build(config: Config, shape: SetShape) -> MaxVote:
    """Build a max vote."""
    del config, shape
    return MaxVote()
