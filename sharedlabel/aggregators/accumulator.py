"""The accumulator is a gated memory that adds and never forgets.

aggregators: [{name: accumulator, hidden: 32}]
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Standardize,
    instance_features,
    normalize,
    widen,
)
from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Dropout, Width
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the accumulator.

    Args:
        hidden: width of the memory, units (ours).
        dropout: fraction of the memory that the read-out does not see in training, in [0, 1) (ours).
    """

    hidden: Width = 64
    dropout: Dropout = 0.2


SPACE = {"hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class Accumulator(SharingAggregator):
    """Log-posterior log p(y) + R c_k of an LSTM whose forget gate is fixed at 1, R a linear read-out of its memory.

    c_k = c_{k-1} + i_k * g_k, as evidence adds up: no instance fades, and since R reads the memory itself instead of
    its tanh, none saturates. The gates see the previous output o_k * tanh(c_k), so an instance can count less
    after others like it. Cost: O(n), three gates of products with input and output per instance.

    Args:
        config: width and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997), which has no forget gate; that is Gers, Schmidhuber &
        Cummins, "Learning to Forget" (2000). Reading the memory is ours.
    """

    permutation_invariant = False
    log_prior: Tensor

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        self.register_buffer("log_prior", shape.log_prior.clone())
        self.standardize = Standardize(shape)
        self.memory = Memory(shape.embedding_dim + shape.num_classes, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.hidden, shape.num_classes)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self._read(self.memory(instance_features(self.standardize(embeddings), logits)))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return the inputs' part of the gates."""
        return (self.memory.drive(instance_features(self.standardize(embeddings), logits)),)

    def together(self, driven: Float[Tensor, "t n g"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return self._read(self.memory.run(driven))

    def _read(self, memory: Float[Tensor, "t n h"]) -> Float[Tensor, "t n c"]:
        scores = self.classify(self.dropout(memory.to(self.classify.weight.dtype)))
        return normalize(self.log_prior + widen(scores))


class Memory(Recurrence):
    """c_k = c_{k-1} + i * tanh(g), with gates i and o from the input and the previous output o * tanh(c).

    Args:
        width: of an input.
        hidden: of the memory.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.enter = nn.Linear(width, 3 * hidden)
        self.recur = nn.Linear(hidden, 3 * hidden, bias=False)

    def drive(self, inputs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b g"]:
        """Return the inputs' part of the gates."""
        driven: Tensor = widen(self.enter(inputs))
        return driven

    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return an empty memory, and an output of zero."""
        zero = driven.new_zeros(driven.shape[0], self.hidden)
        return [zero, zero.clone()]

    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t h"]]:
        """Add to the memory and return it."""
        enter, candidate, leave = (driven + self.recur(state[1].to(self.recur.weight.dtype))).chunk(3, -1)
        memory = state[0] + enter.sigmoid() * candidate.tanh()
        return [memory, leave.sigmoid() * memory.tanh()], memory


def build(config: Config, shape: SetShape) -> Accumulator:
    """Build an accumulator."""
    return Accumulator(config, shape)
