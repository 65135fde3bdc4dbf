"""The plain LSTM: it reads embeddings and log-probabilities one instance after another."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators._base import (
    Aggregator,
    Standardize,
    check_fraction,
    check_positive,
    instance_features,
    normalize,
)
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config:
    """Options of the plain LSTM.

    Args:
        hidden: width of the state, units (ours).
        layers: stacked layers (ours).
        dropout: fraction of a layer's outputs dropped in training, in [0, 1) (ours).
    """

    hidden: int = 64
    layers: int = 1
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_positive(hidden=self.hidden, layers=self.layers)
        check_fraction(dropout=self.dropout)


SPACE = {"hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}


class PlainLstm(Aggregator):
    """Run an LSTM over the tuple and classify its output linearly at every step.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); the set gadget of Leibovitch & Ailon (2020).
    """

    permutation_invariant = False

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__()
        width = shape.embedding_dim + shape.num_classes
        between = config.dropout if config.layers > 1 else 0.0  # torch warns about dropout between layers of one layer
        self.standardize = Standardize(shape)
        self.lstm = nn.LSTM(width, config.hidden, config.layers, batch_first=True, dropout=between)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.hidden, shape.num_classes)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        outputs, _ = self.lstm(instance_features(self.standardize(embeddings), logits))
        return normalize(self.classify(self.dropout(outputs)))


def build(config: Config, shape: SetShape) -> PlainLstm:
    """Build a plain LSTM."""
    return PlainLstm(config, shape)
