"""`sl.backbone`: a classifier of any class as what embeds and classifies, for training together with an aggregator."""

from __future__ import annotations

import threading
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from sharedlabel.api import _arguments
from sharedlabel.errors import CompressionError
from sharedlabel.pruners._modules import as_backbone


class SplitClassifier(nn.Module):
    """A network seen as a body that embeds and a last layer that classifies; its parameters are the network's own.

    Args:
        network: maps a batch of inputs to logits `[b c]`.
        classifier: name of the linear layer whose output these are.
    """

    def __init__(self, network: nn.Module, classifier: str) -> None:
        super().__init__()
        self.network, self.classifier = network, classifier

    def embed(self, inputs: Tensor) -> Float[Tensor, "b d"]:
        """Return what the last layer reads."""
        embeddings, _ = self.both(inputs)
        return embeddings

    def both(self, inputs: Tensor) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b c"]]:
        """Return what the last layer reads, and the logits, from one pass."""
        read: list[Tensor] = []
        thread = threading.get_ident()

        def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
            if threading.get_ident() == thread:  # not what another one asks at the same time
                read.append(given[0])

        handle = self.network.get_submodule(self.classifier).register_forward_pre_hook(keep)
        try:
            logits: Tensor = self.network(inputs)
        finally:
            handle.remove()
        return read[-1], logits

    def classify(self, embeddings: Float[Tensor, "b d"]) -> Float[Tensor, "b c"]:
        """Return the logits of embeddings."""
        logits: Tensor = self.network.get_submodule(self.classifier)(embeddings)
        return logits

    def forward(self, inputs: Tensor) -> Float[Tensor, "b c"]:
        """Return the logits of inputs, as the network does."""
        logits: Tensor = self.network(inputs)
        return logits


def backbone(network: nn.Module, example_inputs: Tensor) -> SplitClassifier:
    """Let a network of any class be trained together with an aggregator, pruned or not.

    Nothing is copied: training the result trains the network.

    Args:
        network: maps inputs `[b ...]` to logits `[b c]`; the last layer is linear.
        example_inputs: a few inputs `[b ...]`, to find that layer.

    Returns:
        A module with `embed(inputs) -> [b d]` and `classify(embeddings) -> [b c]`.

    Raises:
        CompressionError: it is no network, it cannot be run, or what it returns is not the output of a linear layer.

    Example::

        module = sl.SharedLabelModule(sl.backbone(net, images[:8]), sl.aggregator("log_pool", num_classes=10))
        pl.Trainer(max_epochs=10).fit(module, datamodule)
    """
    name = last_layer(_arguments.module(network), example_inputs)
    if not name:
        raise CompressionError(
            f"expected a network that returns the output of a linear layer, got {type(network).__name__}, which does "
            "not; return its logits as they are"
        )
    return SplitClassifier(network, name)


def last_layer(network: nn.Module, example_inputs: Tensor) -> str:
    """Return the name of the linear layer whose output a network returns; nothing where it returns something else.

    Args:
        network: as for `backbone`; it is run as a copy.
        example_inputs: as for `backbone`.

    Raises:
        CompressionError: the network cannot be run.
    """
    apart = as_backbone(network, example_inputs)
    return apart.place if apart.runs else ""
