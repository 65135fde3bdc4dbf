"""Trained networks, rebuilt from the stored outputs of stages."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from sharedlabel.aggregators._base import Aggregator
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import restore
from sharedlabel.config import Plugin, remade
from sharedlabel.errors import StoreError
from sharedlabel.plugins import load
from sharedlabel.store import Artifact
from sharedlabel.types import SetShape

LEARNED = "aggregator."  # prefix of the aggregator's tensors where they are stored together with the backbone's
OPTIONS = "options"  # fact of an output: the aggregator's options, where a search chose them


def stored_backbone(
    plugin: Plugin, image_shape: tuple[int, int, int], num_classes: int, artifact: Artifact
) -> Backbone:
    """Rebuild a backbone from an output that holds it, alone or with an aggregator."""
    tensors = {name: tensor for name, tensor in artifact.tensors().items() if not name.startswith(LEARNED)}
    return restore(plugin, image_shape, num_classes, tensors)


def stored_aggregator(plugin: Plugin, shape: SetShape, artifact: Artifact) -> Aggregator:
    """Rebuild a fitted aggregator from an output that holds it, alone or with a backbone.

    Args:
        plugin: the options that the output was asked for with; those that a search chose come first.
        shape: what it was built for.
        artifact: the output.

    Raises:
        StoreError: it was trained on features of another width, or with other options.
    """
    plugin = remade("aggregators", artifact.meta[OPTIONS]) if searched(artifact) else plugin
    with torch.random.fork_rng(devices=[]):
        aggregator: Aggregator = load("aggregators", plugin.name).build(plugin.config, shape)
    tensors = artifact.tensors()
    prefix = LEARNED if any(name.startswith(LEARNED) for name in tensors) else ""
    expected = aggregator.state_dict()
    for name, tensor in expected.items():
        kept = tensors.get(prefix + name)
        if kept is None or kept.shape != tensor.shape:
            raise StoreError(
                f"expected {name} of shape {list(tensor.shape)} for {plugin.name} on features of width "
                f"{shape.embedding_dim} and {shape.num_classes} classes, got "
                f"{'none' if kept is None else list(kept.shape)} from {artifact.folder}; "
                "use the features and options that it was trained with"
            )
    aggregator.load_state_dict({name: tensors[prefix + name] for name in expected})
    return aggregator.eval()


def searched(artifact: Artifact) -> dict[str, Any]:
    """Return the fact of an output that says which options a search chose; empty without one."""
    return {name: value for name, value in artifact.meta.items() if name == OPTIONS}


def stored_shape(prior: Float[Tensor, "c"], calibration: Artifact) -> SetShape:
    """Return what an aggregator is built for, from the prior of tuples and the output of `calibrate`."""
    tensors = calibration.tensors()
    return SetShape(tensors["embedding_mean"], tensors["embedding_scale"], prior.log().float())
