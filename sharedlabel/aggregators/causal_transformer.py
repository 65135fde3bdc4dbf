"""In the causal Transformer every instance attends to itself and to the instances before it.

aggregators: [{name: causal_transformer, width: 48, layers: 1}]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    prefix_counts,
)
from sharedlabel.aggregators._layers import CountedReadOut, MultiheadAttention, check_heads
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Depth, Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the causal Transformer.

    Args:
        width: of every instance, units; a multiple of `heads` (ours).
        heads: attention heads (ours).
        layers: blocks of attention and feed-forward layer (ours).
        expansion: width of the feed-forward layers relative to `width`; 4 in the paper, 2 here.
        hidden: width of the network that reads the last instance's output, units (ours).
        dropout: fraction of what every block adds, and of the read-out's hidden units, dropped in training, in [0, 1).
    """

    width: Width = 32
    heads: Depth = 4
    layers: Depth = 2
    expansion: Depth = 2
    hidden: Width = 64
    dropout: Dropout = 0.2

    def __post_init__(self) -> None:
        check_heads(self.width, self.heads)


SPACE = {"width": (16, 32, 48), "layers": (1, 2), "dropout": (0.0, 0.2, 0.4)}


class CausalTransformer(SharingAggregator):
    """Log-posterior rho(output of instance k, log k) of a pre-norm Transformer with causal self-attention.

    There is no encoding of positions, so more instances than in training are nothing new to any layer but the read-out:
    attention averages over however many there are, and norms keep what it reads at one scale. Cost: O(n^2).

    Args:
        config: widths, heads, layers and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Vaswani et al., "Attention Is All You Need" (2017); norms first as in Xiong et al., "On Layer Normalization in
        the Transformer Architecture" (2020); log k is ours.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.standardize = Standardize(shape)
        self.project = nn.Linear(shape.embedding_dim + shape.num_classes, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width)
        self.rho = CountedReadOut(config.width, config.hidden, shape.num_classes, config.dropout)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the projection of each instance."""
        return (self.project(instance_features(self.standardize(embeddings), logits)),)

    def together(self, outputs: Float[Tensor, "t n w"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        size = outputs.shape[1]
        allowed = torch.ones(1, size, size, dtype=torch.bool, device=outputs.device).tril()
        for block in self.blocks:
            outputs = block(outputs, allowed)
        posterior: Tensor = self.rho(self.norm(outputs), prefix_counts(outputs))
        return posterior


class Block(nn.Module):
    """x + Attention(norm(x)), then x + FeedForward(norm(x)).

    Args:
        config: widths, heads and dropout.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, inner = config.width, config.expansion * config.width
        self.norm_attend, self.norm_feed = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = MultiheadAttention(width, config.heads)
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, inputs: Float[Tensor, "t n w"], allowed: Bool[Tensor, "1 n n"]) -> Float[Tensor, "t n w"]:
        """Return the outputs of all instances."""
        normed = self.norm_attend(inputs)
        attended = inputs + self.dropout(self.attend(normed, normed, allowed))
        outputs: Tensor = attended + self.dropout(self.feed(self.norm_feed(attended)))
        return outputs


def build(config: Config, shape: SetShape) -> CausalTransformer:
    """Build a causal Transformer."""
    return CausalTransformer(config, shape)
