"""In the majority vote every instance votes for its most probable label.

aggregators: [{name: majority_vote, alpha: 0.5}]
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import one_hot

from sharedlabel.aggregators._base import normalize, widen
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import PositiveFloat
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the majority vote.

    Args:
        alpha: weight of the prior, in votes, above 0; 1 counts the prior as one instance (ours).
    """

    alpha: PositiveFloat = 1.0


class MajorityVote(SharingAggregator):
    """Posterior (count_y + alpha p(y)) / (k + alpha) after k votes.

    An instance whose top probabilities tie votes for the lowest class index.

    Args:
        log_prior: `[c]`, natural log.
        alpha: weight of the prior, in votes.
    """

    permutation_invariant = True
    prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"], alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("prior", log_prior.exp())

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the vote of each instance: 1 for its label, 0 for others."""
        del embeddings
        return (one_hot(logits.argmax(-1), logits.shape[-1]).to(widen(logits).dtype),)

    def together(self, votes: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log of the smoothed share of votes after every prefix."""
        return normalize((votes.cumsum(1) + self.alpha * self.prior).log())


def build(config: Config, shape: SetShape) -> MajorityVote:
    """Build a majority vote."""
    return MajorityVote(shape.log_prior, config.alpha)
