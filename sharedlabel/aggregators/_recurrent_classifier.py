"""A recurrent layer of torch with a linear classifier: all that GRU and plain LSTM share."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.aggregators import _recurrence
from sharedlabel.aggregators._base import Standardize, instance_features, normalize
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.schema import Depth, Dropout, Width
from sharedlabel.types import SetShape

SPACE = {"hidden": (16, 32, 64), "dropout": (0.0, 0.2, 0.4)}
_LAYERS = {"gru": nn.GRU, "lstm": nn.LSTM}


@dataclass(frozen=True)
class RecurrentConfig:
    """Options of a recurrent classifier.

    Args:
        hidden: width of the state, units (ours).
        layers: stacked layers (ours).
        dropout: fraction of a layer's outputs dropped in training, in [0, 1) (ours).
    """

    hidden: Width = 64
    layers: Depth = 1
    dropout: Dropout = 0.0


class RecurrentClassifier(SharingAggregator):
    """Run a recurrent layer over the tuple and classify its output linearly at every step.

    Args:
        config: widths and dropout.
        shape: statistics of the embeddings, and the prior.
        kind: the layer; states know it by this name.
    """

    permutation_invariant = False

    def __init__(self, config: RecurrentConfig, shape: SetShape, kind: str) -> None:
        super().__init__()
        self.kind = kind
        width = shape.embedding_dim + shape.num_classes
        between = config.dropout if config.layers > 1 else 0.0  # torch warns about dropout between layers of one layer
        self.standardize = Standardize(shape)
        layer = _LAYERS[kind](width, config.hidden, config.layers, batch_first=True, dropout=between)
        self.add_module(kind, layer)
        self.dropout = nn.Dropout(config.dropout)
        self.classify = nn.Linear(config.hidden, shape.num_classes)

    def forward(self, embeddings: Float[Tensor, "t n d"], logits: Float[Tensor, "t n c"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        outputs, _ = self.get_submodule(self.kind)(instance_features(self.standardize(embeddings), logits))
        return normalize(self.classify(self.dropout(outputs)))

    def each(self, embeddings: Float[Tensor, "*b d"], logits: Float[Tensor, "*b c"]) -> tuple[Tensor]:
        """Return what the steps are driven by."""
        features = instance_features(self.standardize(embeddings), logits)
        return (_recurrence.driven(self.get_submodule(self.kind), features),)

    def together(self, drive: Float[Tensor, "t n g"]) -> Float[Tensor, "t n c"]:
        """Return the log-posterior after every prefix."""
        return normalize(self.classify(_recurrence.outputs(self.get_submodule(self.kind), drive)))
