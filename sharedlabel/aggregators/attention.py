"""Gated attention pools embeddings and log-probabilities of the instances so far.

aggregators: [{name: attention, hidden: 32, dropout: 0.2}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    normalize,
    prefix_counts,
)
from sharedlabel.aggregators._layers import scores_at
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of gated attention.

    Args:
        attention: width of the two gates, units; 128 is L in the authors' code.
        hidden: width of the network that reads the pooled vector, units (ours).
        dropout: fraction of the pooled vector's hidden units dropped in training, in [0, 1) (ours).
    """

    attention: Width = 128
    hidden: Width = 64
    dropout: Dropout = 0.0


SPACE = {"attention": (32, 64, 128), "hidden": (32, 64, 128), "dropout": (0.0, 0.2, 0.4)}


class Attention(SharingAggregator):
    """Pool the instances seen so far with gated attention weights, then classify the pooled vector.

    A weighted mean throws away how much evidence went into it, so the classifier is also given log k.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Ilse, Tomczak & Welling, "Attention-based Deep Multiple Instance Learning" (2018), eq. 9.
    """

    permutation_invariant = True

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        width = shape.embedding_dim + shape.num_classes
        self.standardize = Standardize(shape)
        self.content = nn.Linear(width, config.attention, bias=False)
        self.gate = nn.Linear(width, config.attention, bias=False)
        self.score = nn.Linear(config.attention, 1, bias=False)
        self.classify = nn.Sequential(
            nn.Linear(width + 1, config.hidden),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.hidden, shape.num_classes),
        )

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        features = instance_features(self.standardize(embeddings), logits)
        pooled = weights(self.scores(features)).to(features.dtype) @ features
        log_counts = prefix_counts(features).log().expand(len(features), -1, 1)
        return normalize(self.classify(torch.cat([pooled, log_counts.to(pooled.dtype)], dim=-1)))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, Tensor]:
        """Return the score, and what the first layer of the classifier makes of the features alone."""
        features = instance_features(self.standardize(embeddings), logits)
        return self.scores(features), nn.functional.linear(features, self._first.weight[:, :-1])

    def together(self, scores: Float[Tensor, "t n 1"], read: Float[Tensor, "t n h"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix; the layer is linear, so what it makes of them is pooled."""
        counted = torch.addcmul(self._first.bias, prefix_counts(read).log(), self._first.weight[:, -1])
        return normalize(self.classify[1:](weights(scores) @ read + counted))

    @property
    def _first(self) -> nn.Linear:
        first = self.classify[0]
        assert isinstance(first, nn.Linear)
        return first

    def scores(self, features: Float[Tensor, "*b f"]) -> Float[Tensor, "*b 1"]:
        """Return the score of every instance, which others do not change."""
        score: Tensor = self.score(self.content(features).tanh() * self.gate(features).sigmoid())
        return score


def weights(scores: Float[Tensor, "t n 1"]) -> Float[Tensor, "t n n"]:
    """Return the weight of every instance (last axis) in every prefix; 0 beyond the prefix."""
    return scores_at(scores).softmax(-1)


def build(config: Config, shape: SetShape) -> Attention:
    """Build gated attention."""
    return Attention(config, shape)
