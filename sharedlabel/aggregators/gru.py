"""The GRU reads embeddings and log-probabilities one instance after another.

aggregators: [{name: gru, hidden: 32}]
"""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.aggregators._recurrent_classifier import SPACE, RecurrentClassifier, RecurrentConfig
from sharedlabel.config.schema import Dropout
from sharedlabel.types import SetShape

__all__ = ["SPACE", "Config", "Gru", "build"]


@dataclass(frozen=True)
class Config(RecurrentConfig):
    """Options of the GRU.

    Args:
        hidden: width of the state, units (ours).
        layers: stacked layers (ours).
        dropout: fraction of a layer's outputs dropped in training, in [0, 1) (ours).
    """

    dropout: Dropout = 0.2


class Gru(RecurrentClassifier):
    """Run a GRU over the tuple and classify its output linearly at every step.

    Its state is an average of bounded candidates, so it forgets as it learns. Cost: O(n), three gates of products
    with input and state per instance.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.

    Reference:
        Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation"
        (2014), in the form of torch.nn.GRU.
    """

    def __init__(self, config: Config, shape: SetShape) -> None:
        super().__init__(config, shape, "gru")


def build(config: Config, shape: SetShape) -> Gru:
    """Build a GRU."""
    return Gru(config, shape)
