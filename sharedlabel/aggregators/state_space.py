"""The state-space reader corrects the tempered log-pool by memories that fade as fast as each instance tells them to.

aggregators: [{name: state_space, hidden: 16}]
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import Standardize, instance_features, normalize, widen
from sharedlabel.aggregators._pool import TemperedPool
from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.aggregators._tempered_start import TemperedStart
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape

_STEPS = (0.01, 1.0)  # of memories at the start: from a hundred instances down to one


@dataclass(frozen=True)
class Config:
    """Options of the state-space reader.

    Args:
        hidden: number of memories (ours).
        dropout: fraction of the features and of what is read that is dropped in training, in [0, 1) (ours).
    """

    hidden: Width = 32
    dropout: Dropout = 0.2


SPACE = {"hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class StateSpace(TemperedStart):
    """Add to the tempered log-pool a linear read-out, zero at the start, of s_k = exp(-delta_k) s_{k-1} + delta_k u_k.

    Input u and step delta = softplus(W x + b) of every memory follow from the instance x: embedding and
    log-probabilities. A memory with a small step keeps what it has, one with a large step takes what comes. What is
    read of it, s_k silu(g_k), is gated by the instance, too. Cost: O(n), three products of the input with `hidden`.

    Args:
        config: number of memories, and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Gu & Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023), with one state for each
        channel, A = -1, and no convolution; the log-pool as the start is ours.
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.pool = TemperedPool(shape.log_prior)
        self.standardize = Standardize(shape)
        self.dropout = nn.Dropout(config.dropout)
        self.memories = Memories(shape.embedding_dim + shape.num_classes, config.hidden)
        self.read_out = nn.Linear(config.hidden, shape.num_classes)
        nn.init.zeros_(self.read_out.weight)
        nn.init.zeros_(self.read_out.bias)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        read = self.memories(self.dropout(instance_features(self.standardize(embeddings), logits)))
        return self._corrected(self.pool.evidence(logits), read)

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor, Tensor]:
        """Return the evidence, and what the memories are driven by."""
        features = instance_features(self.standardize(embeddings), logits)
        return self.pool.evidence(logits), self.memories.drive(features)

    def together(self, evidence: Float[Tensor, "t n c"], driven: Float[Tensor, "t n g"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self._corrected(evidence, self.memories.run(driven))

    def _corrected(self, evidence: Float[Tensor, "t n c"], read: Float[Tensor, "t n h"]) -> Float[Tensor, "t n c"]:
        correction = self.read_out(self.dropout(read.to(self.read_out.weight.dtype)))
        return normalize(self.pool(evidence) + correction.to(evidence.dtype))


class Memories(Recurrence):
    """s_k = exp(-delta_k) s_{k-1} + delta_k u_k, read as s_k silu(g_k).

    Args:
        width: of an input.
        hidden: number of memories.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.enter = nn.Linear(width, 3 * hidden)
        low, high = (math.log(step) for step in _STEPS)
        steps = torch.linspace(low, high, hidden).exp()
        with torch.no_grad():
            self.enter.bias[hidden : 2 * hidden] = (steps.expm1()).log()  # softplus gives the steps back

    def drive(self, inputs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b g"]:
        """Return how long each memory lasts, what enters it, and how it is read."""
        entered, steps, gates = widen(self.enter(inputs)).chunk(3, -1)
        steps = nn.functional.softplus(steps)
        return torch.cat([(-steps).exp(), steps * entered, nn.functional.silu(gates)], dim=-1)

    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return empty memories."""
        return [driven.new_zeros(driven.shape[0], self.hidden)]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t h"]]:
        """Let memories fade, add to them, and read them."""
        kept, entered, gates = driven.chunk(3, -1)
        memories = kept * state[0] + entered
        return [memories], memories * gates


def build(config: Config, shape: SetShape) -> StateSpace:
    """Build a state-space reader."""
    return StateSpace(config, shape)
