"""The plain LSTM reads embeddings and log-probabilities one instance after another.

aggregators: [{name: lstm, hidden: 32}]
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.aggregators._recurrent_classifier import SPACE, RecurrentClassifier, RecurrentConfig
from sharedlabel.types import SetShape

__all__ = ["SPACE", "Config", "PlainLstm", "build"]


@dataclass(frozen=True)
class Config(RecurrentConfig):
    """Options of the plain LSTM.

    Args:
        hidden: width of the state, units (ours).
        layers: stacked layers (ours).
        dropout: fraction of a layer's outputs dropped in training, in [0, 1) (ours).
    """


class PlainLstm(RecurrentClassifier):
    """Run an LSTM over the tuple and classify its output linearly at every step.

    Cost: O(n), four gates of products with input and state per instance.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Hochreiter & Schmidhuber, "Long Short-Term Memory" (1997); the set gadget of Leibovitch & Ailon (2020).
    """

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__(config, shape, "lstm")


def build(config: Config, shape: SetShape) -> PlainLstm:
    """Build a plain LSTM."""
    return PlainLstm(config, shape)
