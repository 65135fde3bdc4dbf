"""Two streams: attention that knows time reads embeddings, and its weights pool evidence; both correct the log-pool.

aggregators: [{name: two_stream, hidden: 64}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import Standardize, instance_features, normalize, prefix_counts
from sharedlabel.aggregators._layers import scores_at
from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._tempered_start import TemperedStart
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the two streams.

    Args:
        attention: width of the two gates of the attention, units (ours).
        hidden: width of the network that reads the pooled vector, units (ours).
        dropout: fraction of its hidden units dropped in training, in [0, 1) (ours).
    """

    attention: Width = 32
    hidden: Width = 32
    dropout: Dropout = 0.2


SPACE = {"attention": (16, 32, 64), "hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class TwoStream(TemperedStart):
    """Log-posterior log p(y) + b(k) sum evidence + c k^e sum_i a_i evidence_i + rho(sum_i a_i x_i, log k).

    The weights a_i of a prefix are a softmax of gated scores of the instances x, embedding and log-probabilities, plus
    a learned number times how many instances came after. The first sum is the tempered log-pool, at which it starts: c
    and the last layer of rho are zero then. Cost: O(n) products of an instance with weights, and O(n^2 (d + c)) for
    the sums.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning" (2018), eq. 9; Press, Smith & Lewis,
        "Train Short, Test Long" (2022), on scores that are linear in time; two streams that are fused late: Simonyan &
        Zisserman, "Two-Stream Convolutional Networks for Action Recognition in Videos" (2014). The combination is ours.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        width = shape.embedding_dim + shape.num_classes
        self.pool = TemperedPool(shape.log_prior)
        self.standardize = Standardize(shape)
        self.content = nn.Linear(width, config.attention, bias=False)
        self.gate = nn.Linear(width, config.attention, bias=False)
        self.score = nn.Linear(config.attention, 1, bias=False)
        self.recency = nn.Parameter(torch.zeros(()))
        self.share = nn.Parameter(torch.zeros(()))
        self.growth = nn.Parameter(torch.zeros(()))
        self.read = nn.Sequential(nn.Linear(width + 1, config.hidden), nn.ReLU(), nn.Dropout(config.dropout))
        self.classify = nn.Linear(config.hidden, shape.num_classes)
        nn.init.zeros_(self.classify.weight)
        nn.init.zeros_(self.classify.bias)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return the evidence, the features and the score of each instance."""
        features = instance_features(self.standardize(embeddings), logits)
        score: Tensor = self.score(self.content(features).tanh() * self.gate(features).sigmoid())
        return self.pool.evidence(logits), features, score

    def together(
        self, evidence: Float[Tensor, "t n c"], features: Float[Tensor, "t n f"], scores: Float[Tensor, "t n 1"]
    ) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        counts = prefix_counts(scores)
        weights = scores_at(scores, self.recency * (counts.T - counts)).softmax(-1)  # [t, k, i]
        log_counts = counts.log()
        pooled = weights.to(features.dtype) @ features
        read = self.read(torch.cat([pooled, log_counts.to(pooled.dtype).expand(len(pooled), -1, 1)], dim=-1))
        chosen = weights.to(evidence.dtype) @ evidence
        grown = self.share * (self.growth * log_counts.to(evidence.dtype)).exp()
        return normalize(self.pool(evidence) + grown * chosen + self.classify(read).to(evidence.dtype))


def build(config: Config, shape: SetShape) -> TwoStream:
    """Build two streams."""
    return TwoStream(config, shape)
