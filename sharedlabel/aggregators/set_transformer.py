"""In the Set Transformer the instances of a prefix attend to each other, and a learned seed to all of them.

aggregators: [{name: set_transformer, loss: prefixes}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Aggregator,
    Standardize,
    doubling_prefix_weights,
    instance_features,
    pick,
    prefix_counts,
)
from sharedlabel.aggregators._layers import CountedReadOut, MultiheadAttention, check_heads
from sharedlabel.aggregators._prefixes import over_prefixes
from sharedlabel.config.schema import Depth, Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the Set Transformer.

    Args:
        width: of every instance and of the pooled vector, units; a multiple of `heads` (ours).
        heads: attention heads; 4 in the authors' code.
        blocks: set attention blocks before the pooling; 2 in the paper.
        hidden: width of the network that reads the pooled vector, units (ours).
        dropout: fraction of attention weights and of the read-out's hidden units dropped in training, in [0, 1) (ours).
        loss: prefixes that are trained on: `doubling` for 1, 2, 4, 8, ... and the whole tuple, `prefixes` for all of
            them, at three times the time for 16 instances (ours).
    """

    width: Width = 32
    heads: Depth = 4
    blocks: Depth = 2
    hidden: Width = 64
    dropout: Dropout = 0.2
    loss: Literal["doubling", "prefixes"] = "doubling"

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)


SPACE = {"width": (16, 32, 48), "blocks": (1, 2), "dropout": (0.0, 0.2, 0.4)}


class SetTransformer(Aggregator):
    """Log-posterior rho(PMA(SAB(...SAB(x_1, ..., x_k))), log k), computed anew for every prefix.

    An earlier instance attends to later ones, so nothing computed for one prefix serves the next. Cost: O(n^2) for all
    instances alone, which is what is counted; O(n^3) for all prefixes, so training and evaluation compute only those
    that they need.

    Args:
        config: widths, heads, blocks and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Lee et al., "Set Transformer" (2019), eqs. 6 to 8 and 11; log k is ours.
    """

    permutation_invariant = True

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.loss = config.loss
        self.standardize = Standardize(shape)
        self.project = nn.Linear(shape.embedding_dim + shape.num_classes, config.width)
        self.blocks = nn.ModuleList(
            AttentionBlock(config.width, config.heads, config.dropout) for _ in range(config.blocks)
        )
        self.seed = nn.Parameter(nn.init.xavier_uniform_(torch.empty(1, config.width)))
        self.before = nn.Linear(config.width, config.width)
        self.pool = AttentionBlock(config.width, config.heads, config.dropout)
        self.rho = CountedReadOut(config.width, config.hidden, shape.num_classes, config.dropout)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self._after(embeddings, logits, prefix_counts(embeddings))

    def at(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], prefixes: Sequence[int]
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior after some prefixes alone, from one set each."""
        longest = max(prefixes)
        counts = pick(prefix_counts(embeddings)[None], prefixes)[0]
        return self._after(embeddings[:, :longest], logits[:, :longest], counts)

    def prefix_weights(self, prefixes: int) -> Float[Tensor, "n"]:
        """Return the weight of each prefix in the loss."""
        return doubling_prefix_weights(prefixes) if self.loss == "doubling" else super().prefix_weights(prefixes)

    def _after(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], counts: Float[Tensor, "k 1"]
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior after so many instances each."""
        projected = self.project(instance_features(self.standardize(embeddings), logits))
        posterior: Tensor = self.rho(over_prefixes(self.pooled, projected, counts.long()), counts)
        return posterior

    def pooled(self, sets: Float[Tensor, "s n w"], present: Bool[Tensor, "s n"]) -> Float[Tensor, "s w"]:
        """Return the pooled vector of every set."""
        allowed = present[:, None]
        for block in self.blocks:
            sets = block(sets, sets, allowed)
        seeds = self.seed.expand(sets.shape[0], -1, -1)  # len() would fix the length of an exported program
        pooled: Tensor = self.pool(seeds, self.before(sets).relu(), allowed)
        return pooled[:, 0]


class AttentionBlock(nn.Module):
    """MAB(X, Y) = LayerNorm(H + relu(W H)), H = LayerNorm(X + Multihead(X, Y, Y)).

    Args:
        width: of X and Y.
        heads: attention heads.
        dropout: fraction of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attend = MultiheadAttention(width, heads, dropout)
        self.feed = nn.Linear(width, width)
        self.norm_attended, self.norm_fed = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(
        self, queries: Float[Tensor, "s q w"], keys: Float[Tensor, "s n w"], allowed: Bool[Tensor, "#s #q n"]
    ) -> Float[Tensor, "s q w"]:
        """Return the queries after they have read the allowed keys."""
        attended = self.norm_attended(queries + self.attend(queries, keys, allowed))
        fed: Tensor = self.norm_fed(attended + self.feed(attended).relu())
        return fed


def build(config: Config, shape: SetShape) -> SetTransformer:
    """Build a Set Transformer."""
    return SetTransformer(config, shape)
