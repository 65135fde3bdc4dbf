"""Janossy pooling averages an aggregator that depends on the order over several orders of the same instances.

aggregators: [{name: janossy, base: {name: gru, hidden: 16}, orders: 8}]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sharedlabel.aggregators._base import Aggregator, normalize, pick, prefix_counts
from sharedlabel.aggregators._orders import orders
from sharedlabel.aggregators._space import Space, space_of
from sharedlabel.config import nested, resolve
from sharedlabel.config.schema import Depth
from sharedlabel.errors import ConfigError
from sharedlabel.plugins import load
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of Janossy pooling.

    Args:
        base: the aggregator that is averaged, by name or as a mapping of `name` and its options; it depends on the
            order of instances.
        orders: orders of every prefix in evaluation, at least 1; the first is the given one (ours).
    """

    base: str | dict[str, Any] = nested("aggregators", "lstm")
    orders: Depth = 4

    def __post_init__(self) -> None:
        plugin = resolve("aggregators", self.base)
        object.__setattr__(self, "base", plugin.payload())  # with its defaults: they are part of what is computed
        with torch.random.fork_rng(devices=[]):
            tried = load("aggregators", plugin.name).build(plugin.config, _toy_shape())
        if tried.permutation_invariant:
            raise ConfigError(
                f"base must depend on the order of instances, got {plugin.name!r}, which gives the same posterior in "
                "every order; use it without janossy"
            )


def space(config: Config) -> Space:
    """Return what a search may change: the base's own options."""
    return {f"base.{name}": choices for name, choices in space_of(resolve("aggregators", config.base)).items()}


class Janossy(Aggregator):
    """Log-posterior: the mean of the base's log-posteriors over `orders` orders of the same instances, normalised.

    Averaging logarithms is Janossy pooling of the base's scores with a softmax on top. It is never worse than the
    mean negative log-likelihood of the orders, since the normaliser of a geometric mean is at most 1, and unlike the
    mean of probabilities it does not become less sure. The first order is the given one; the others are fixed
    permutations that depend on the number of instances and on the order's index alone. Training sees one order of every
    tuple, drawn anew each time (pi-SGD). Nearly order-free. Cost: that of the base, once per order; all prefixes of
    reordered instances need one pass each and order. Early stopping looks at the given order.

    Args:
        config: the base and the number of orders.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Murphy, Srinivasan, Rao & Ribeiro, "Janossy Pooling: Learning Deep Permutation-Invariant Functions for
        Variable-Size Inputs" (2019), sections 2.2 and 2.3.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        plugin = resolve("aggregators", config.base)
        self.base: Aggregator = load("aggregators", plugin.name).build(plugin.config, shape)
        self.orders = config.orders

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        total: Tensor = self.base(embeddings, logits)
        return total if self.training else self._averaged(total, embeddings, logits, prefix_counts(logits).long())

    def at(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], prefixes: Sequence[int]
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior after some prefixes alone, from one pass per prefix and order."""
        total = self.base.at(embeddings, logits, prefixes)
        counts = pick(prefix_counts(logits)[None], prefixes)[0].long()
        return total if self.training else self._averaged(total, embeddings, logits, counts)

    def draft(
        self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"], prefixes: Sequence[int]
    ) -> Float[Tensor, "t k c"]:
        """Return the log-posterior of the given order alone."""
        return self.base.draft(embeddings, logits, prefixes)

    def prefix_weights(self, prefixes: int) -> Float[Tensor, "n"]:
        """Return the weight of each prefix in the base's loss."""
        return self.base.prefix_weights(prefixes)

    def fit(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"],
    ) -> bool:
        """Fit the base."""
        return self.base.fit(embeddings, logits, labels, weights)

    def _averaged(
        self,
        total: Float[Tensor, "t k c"],
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        counts: Int64[Tensor, "k 1"],
    ) -> Float[Tensor, "t k c"]:
        """Average the log-posterior of the given order with those of the others, after so many instances each."""
        for number in range(1, self.orders):
            total = total + self._reordered(embeddings, logits, counts, number)
        return normalize(total / self.orders)

    def _reordered(
        self,
        embeddings: Float[Tensor, "t n d"],
        logits: Float[Tensor, "t n c"],
        counts: Int64[Tensor, "k 1"],
        number: int,
    ) -> Float[Tensor, "t k c"]:
        """Return the base's log-posterior after the instances of every prefix in an order of its own."""
        order = orders(counts, logits.shape[1], number)  # [k, n]
        posterior: Tensor = self.base(embeddings[:, order].flatten(0, 1), logits[:, order].flatten(0, 1))
        every = posterior.reshape(logits.shape[0], counts.shape[0], logits.shape[1], logits.shape[2])
        step = (counts - 1).expand(logits.shape[0], -1, every.shape[-1])[:, :, None]  # the last of each prefix
        return every.gather(2, step)[:, :, 0]


def _toy_shape() -> SetShape:
    """Return the smallest shape, for a base that is built only to be asked whether order matters to it."""
    return SetShape(torch.zeros(1), torch.ones(1), torch.zeros(2))


def build(config: Config, shape: SetShape) -> Janossy:
    """Build Janossy pooling."""
    return Janossy(config, shape)
