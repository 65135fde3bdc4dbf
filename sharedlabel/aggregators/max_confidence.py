"""Max confidence believes the instance that is surest of its label, and no other."""

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
    """Max confidence has no options."""


class MaxConfidence(SharingAggregator):
    """Posterior of the instance whose largest probability is largest; of the first of several. Cost: O(n c).

    Unlike the max vote it is the posterior of one instance. It is what suits tuples of which one instance is good and
    the others say nothing new. Numbers that are exactly alike aside, the order does not matter.

    Reference:
        Kittler, Hatef, Duin & Matas, "On Combining Classifiers" (1998); that one instance speaks for all is the key
        frame of video recognition.
    """

    permutation_invariant = True

    def __init__(self) -> None:
        super().__init__()
        self.surest = Surest()

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the log-probabilities of each instance."""
        del embeddings
        return (normalize(logits),)

    def together(self, log_probabilities: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.surest(log_probabilities))


class Surest(Recurrence):
    """The values of the instance so far whose largest value is largest."""

    def start(self, driven: Float[Tensor, "t n c"]) -> list[Tensor]:
        """Return the lowest value of all."""
        return [torch.full_like(driven[:, 0, :1], -torch.inf), torch.zeros_like(driven[:, 0])]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t c"]) -> tuple[list[Tensor], Float[Tensor, "t c"]]:
        """Return the surer instance's values."""
        sure = driven.amax(-1, keepdim=True)
        values = torch.where(sure > state[0], driven, state[1])
        return [torch.maximum(sure, state[0]), values], values


def build(config: Config, shape: SetShape) -> MaxConfidence:
    """Build max confidence."""
    del config, shape
    return MaxConfidence()
