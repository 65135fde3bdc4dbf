"""The refit pool is the log-pool of instances whose evidence a small head, trained on held-out images, corrects.

aggregators: [{name: refit_pool, tempered: true}]
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int64
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    normalize,
)
from sharedlabel.aggregators._pool import TemperedPool, log_evidence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config import added
from sharedlabel.config.schema import Dropout, OptionalWidth
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the refit pool.

    Args:
        hidden: width of the head's hidden layer, units; 0 makes it linear (ours).
        dropout: fraction of what the head's last layer reads that is dropped in training, in [0, 1) (ours).
        tempered: multiply the evidence of k instances by b(k), which starts as that of the tempered log-pool; this is
            what the crafted LSTM corrects, and it allows for instances that depend on each other (ours).
    """

    hidden: OptionalWidth = 64
    dropout: Dropout = 0.2
    tempered: bool = added(False)


SPACE = {"hidden": (0, 32, 64, 128), "dropout": (0.0, 0.2, 0.4)}


class RefitPool(SharingAggregator):
    """Log-posterior log p(y) + b(k) sum_i [log p(y | x_i) - log p(y) + phi(h_i, log p_i)(y)], b = 1 unless tempered.

    phi starts at zero, the log-pool. A sum over instances is all that the best posterior of instances that are
    independent given the label needs. Cost: O(n).

    Args:
        config: width and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Zaheer et al., "Deep Sets" (2017), with a softmax as rho and the log-pool as the start (ours).
    """

    permutation_invariant = True
    fits_ragged = True
    log_prior: Tensor

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.register_buffer("log_prior", shape.log_prior.clone())
        self.pool = TemperedPool(shape.log_prior) if config.tempered else None
        self.standardize = Standardize(shape)
        width = shape.embedding_dim + shape.num_classes
        layers = [nn.Linear(width, config.hidden), nn.ReLU()] if config.hidden else []
        self.read = nn.Sequential(*layers, nn.Dropout(config.dropout))
        self.correct = nn.Linear(config.hidden or width, shape.num_classes)
        nn.init.zeros_(self.correct.weight)
        nn.init.zeros_(self.correct.bias)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the corrected evidence of each instance."""
        evidence = log_evidence(logits, self.log_prior)
        correction = self.correct(self.read(instance_features(self.standardize(embeddings), logits)))
        return (evidence + correction.to(evidence.dtype),)

    def together(self, corrected: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.log_prior + corrected.cumsum(1) if self.pool is None else self.pool(corrected))

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | Float[Tensor, "t n"],
    ) -> bool:
        """Start at the log-pool, tempered if asked for; gradient descent does the rest."""
        del embeddings
        if self.pool is not None:
            self.pool.fit(logits, labels, weights)
        return False


def build(config: Config, shape: SetShape) -> RefitPool:
    """Build a refit pool."""
    return RefitPool(config, shape)
