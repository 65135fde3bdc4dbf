"""Synthetic tuples whose exact posterior is known."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Discrete:
    """Tuples of symbols that are independent given the label, with a prior that is not uniform.

    Attributes:
        prior: `[c]`.
        table: `[c s]`, probability of each symbol given the label.
        symbols: `[t n]`.
        labels: `[t]`.
    """

    prior: Tensor
    table: Tensor
    symbols: Tensor
    labels: Tensor

    @property
    def shape(self) -> SetShape:
        return SetShape(
            embedding_mean=torch.zeros(2).double(), embedding_scale=torch.ones(2).double(), log_prior=self.prior.log()
        )

    @property
    def embeddings(self) -> Tensor:
        return torch.zeros(*self.symbols.shape, 2).double()

    @property
    def logits(self) -> Tensor:
        """Exact log p(y | symbol), plus a constant per instance that a softmax removes."""
        joint = (self.prior[:, None] * self.table).T[self.symbols]
        return (joint / joint.sum(-1, keepdim=True)).log() + self.symbols[..., None]

    @property
    def weights(self) -> Tensor:
        return torch.full((len(self.labels),), 1 / len(self.labels)).double()


@pytest.fixture(scope="session")
def discrete() -> Discrete:
    generator = rng.generator(0, "discrete")
    prior = torch.tensor([0.5, 0.3, 0.2]).double()
    table = torch.rand(3, 6, generator=generator).double() + 0.2
    table /= table.sum(-1, keepdim=True)
    labels = torch.multinomial(prior, 3000, replacement=True, generator=generator)
    symbols = torch.multinomial(table[labels], 7, replacement=True, generator=generator)
    return Discrete(prior, table, symbols, labels)
