"""`layers`: how many weights of each layer a pruner has left."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sharedlabel.config import Experiment, Plugin
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.pruners._masks import kept, prunable
from sharedlabel.records.measurements import LayerWeights
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.stages._base import Finished, NetworkSetting
from sharedlabel.store import Artifact, Output

VERSION = 1
LEAF, INPUTS, TABLE = "network", ("reference", "backbone"), "layers"


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin


def configure(experiment: Experiment, setting: NetworkSetting) -> Config:
    """Return what a call depends on."""
    del experiment
    return Config(setting.backbone)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Count the weights of every prunable layer of the dense network, and those that the pruned one has left.

    Layers that the pruner has replaced by others, such as butterfly layers, are left out.
    """
    del runtime
    dense = prunable(_read.backbone(config.backbone, data, inputs["reference"]))
    left = kept(_read.backbone(config.backbone, data, inputs["backbone"]))
    counts = {name: int(mask.count_nonzero()) for name, mask in left.items()}
    layers = [
        {"layer": name, "weights_dense": place.weight.numel(), "weights": counts[name]}
        for name, place in dense.items()
        if name in counts
    ]
    return Output({}, {"layers": layers})


def records(finished: Finished) -> Iterator[LayerWeights]:
    """Yield a record for every layer."""
    for layer in finished.facts["layers"]["layers"]:
        named = finished.named("data", "backbone", "pruner", "ratio", "seed")
        sparsity = 1 - layer["weights"] / layer["weights_dense"]
        yield LayerWeights(**named, training=finished.network_training, sparsity=sparsity, **layer)
