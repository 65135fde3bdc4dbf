"""In the confusion vote every instance votes for its most probable label, and votes count by how the voter errs.

aggregators: [{name: confusion_vote, alpha: 0.5}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn.functional import one_hot

from sharedlabel.aggregators._base import normalize, widen
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import PositiveFloat
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the confusion vote.

    Args:
        alpha: weight of the votes of all labels together in the estimate of each label's, in instances, above 0 (ours).
    """

    alpha: PositiveFloat = 1.0


class ConfusionVote(SharingAggregator):
    """Posterior p(y) prod C[v_i given y], v_i the vote of instance i and C how the network votes for each label.

    C[v given y] = (N_vy + alpha m_v) / (N_y + alpha): the votes counted on training tuples, drawn towards their share
    m_v = (N_v + alpha / c) / (N + alpha) among all labels, which is drawn towards 1 / c in turn. So no vote rules a
    label out. Before the fit, C stands as if every label had got one vote, a right one. Cost: O(n), no products.

    Args:
        log_prior: `[c]`, natural log.
        alpha: weight of the smoothing, in instances.

    Reference:
        Dawid & Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm" (1979), with one
        observer whose errors are known; the smoothing is ours.
    """

    permutation_invariant = True
    log_prior: Tensor

    def __init__(self, log_prior: Float[Tensor, "c"], alpha: float) -> None:
        super().__init__()
        self.alpha = alpha
        self.register_buffer("log_prior", log_prior.clone())
        right = torch.eye(log_prior.numel(), dtype=log_prior.dtype, device=log_prior.device)
        self.log_confusion = nn.Parameter(self._confusion(right).log())  # [vote, label]

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the log-likelihood of each instance's vote."""
        del embeddings
        likelihood = self.log_confusion.log_softmax(0)
        return (widen(likelihood[logits.argmax(-1)]),)

    def together(self, likelihood: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.log_prior + likelihood.cumsum(1))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Count the votes of all instances; there is nothing left to train."""
        del embeddings
        votes = one_hot(logits.argmax(-1), logits.shape[-1]).sum(1).double()  # [t, c]
        relative = weights.double() / weights.double().mean()
        counts = votes.T @ (relative[:, None] * one_hot(labels, logits.shape[-1]))
        with torch.no_grad():
            self.log_confusion.copy_(self._confusion(counts).log())
        return True

    def _confusion(self, counts: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
        """Return the smoothed share of each vote (rows) for each label (columns)."""
        shares = (counts.sum(1) + self.alpha / len(counts)) / (counts.sum() + self.alpha)
        smoothed: Tensor = (counts + self.alpha * shares[:, None]) / (counts.sum(0) + self.alpha)
        return smoothed


def build(config: Config, shape: SetShape) -> ConfusionVote:
    """Build a confusion vote."""
    return ConfusionVote(shape.log_prior, config.alpha)
