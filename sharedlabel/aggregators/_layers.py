"""Layers that several aggregators are made of."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import normalize
from sharedlabel.errors import ConfigError


class CountedReadOut(nn.Module):
    """Classify a pooled vector together with log k, which a mean-like pool throws away.

    Args:
        width: of the pooled vector.
        hidden: of the one hidden layer, units.
        classes: labels.
        dropout: fraction of hidden units dropped in training.
    """

    def __init__(self, width: int, hidden: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width + 1, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)
        )

    @property
    def last(self) -> nn.Linear:
        """The layer that returns scores."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        return last

    def forward(self, pooled: Float[Tensor, "t k w"], counts: Float[Tensor, "k 1"]) -> Float[Tensor, "t k c"]:
        """Return log-posteriors.

        Args:
            pooled: one vector per prefix.
            counts: instances in each prefix.
        """
        return normalize(self.scores(pooled, counts))

    def scores(self, pooled: Float[Tensor, "t k w"], counts: Float[Tensor, "k 1"]) -> Float[Tensor, "t k c"]:
        """Return them before they are normalised; the arguments are those of `forward`."""
        log_counts = counts.log().to(pooled.dtype).expand(pooled.shape[0], -1, 1)
        features = torch.cat([pooled, log_counts], dim=-1)
        scores: Tensor = self.layers(features.to(self.last.weight.dtype))
        return scores


class MultiheadAttention(nn.Module):
    """Scaled dot-product attention with several heads; it computes what `torch.nn.MultiheadAttention` computes.

    Written out, so that its products are counted and exported like all others.

    Args:
        width: of queries, keys and values; a multiple of `heads`.
        heads: number of heads.
        dropout: fraction of attention weights dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, queries: Float[Tensor, "s q w"], keys: Float[Tensor, "s n w"], allowed: Bool[Tensor, "#s #q n"]
    ) -> Float[Tensor, "s q w"]:
        """Return what each query reads from the allowed keys; each needs one at least."""
        query, key, value = (
            self._split(projected) for projected in (self.query(queries), self.key(keys), self.value(keys))
        )
        scores = query @ key.mT / query.shape[-1] ** 0.5  # [s, heads, q, n]
        weights = scores.masked_fill(~allowed[:, None], -torch.inf).softmax(-1)
        read: Tensor = self.out((self.dropout(weights).to(value.dtype) @ value).transpose(1, 2).flatten(2))
        return read

    def _split(self, projected: Float[Tensor, "s n w"]) -> Float[Tensor, "s h n v"]:
        split: Tensor = projected.unflatten(-1, (self.heads, -1))
        return split.transpose(1, 2)


def scores_at(scores: Float[Tensor, "t n 1"], added: Float[Tensor, "n n"] | float = 0.0) -> Float[Tensor, "t n n"]:
    """Return the score of every instance (last axis) in every prefix; minus infinity beyond the prefix.

    Args:
        scores: of the instances.
        added: to the score of an instance (last axis) in a prefix.
    """
    size = scores.shape[1]
    later = torch.ones(size, size, dtype=torch.bool, device=scores.device).triu(1)
    masked: Tensor = (scores.mT + added).expand(-1, size, -1).masked_fill(later, -torch.inf)
    return masked


def check_heads(width: int, heads: int) -> None:
    """Refuse a width that the heads cannot share out.

    Raises:
        ConfigError: names both.
    """
    if width % heads:
        raise ConfigError(f"width must be a multiple of heads, got {width} and {heads}; change one of them")
