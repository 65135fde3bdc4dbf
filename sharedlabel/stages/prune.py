"""`prune`: prune a backbone to a compression ratio and train what is left, as the pruner's schedule says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharedlabel import rng
from sharedlabel.backbones._masking import count_parameters, enforce
from sharedlabel.backbones._restore import state
from sharedlabel.config import Plugin
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.records import NetworkTraining
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.store import Artifact, Output
from sharedlabel.training import compression
from sharedlabel.training.embedding import accuracy

VERSION = 2


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin
    pruner: Plugin
    ratio: float
    train: TrainConfig
    retrain: TrainConfig
    precision: str
    seed: int

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return compression.epochs(self.pruner, self.train, self.retrain)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Prune a backbone and train what is left.

    The network to prune is that of the `previous` round, else the `dense` one, else the one just initialised.
    """
    with rng.seeded(config.seed, "dense"):
        initialised = compression.initial(config.backbone, data)
    original = _read.backbone(config.backbone, data, inputs["dense"]) if "dense" in inputs else initialised
    start = _read.backbone(config.backbone, data, inputs["previous"]) if "previous" in inputs else original
    # The ratio is over all parameters of the dense network; the previous round may have made layers smaller.
    ratio = config.ratio * count_parameters(start) / count_parameters(original)
    if "previous" in inputs:  # which may have removed a part of a channel too much: then there is nothing to remove
        ratio = max(1.0, ratio)
    with rng.seeded(config.seed, "retrain"):
        pruned, trained, losses = compression.compress(
            start,
            ratio,
            config.pruner,
            compression.BackboneTrainer(data, runtime, config.train, config.retrain, config.seed),
            inputs["early"].tensors() if "early" in inputs else None,
        )
    enforce(trained)  # gradual pruning leaves the optimiser momentum of weights that it removes
    trained_before = config.train.epochs if "dense" in inputs else 0.0
    if "previous" in inputs:
        trained_before = inputs["previous"].meta["training_epochs"]
    return Output(
        state(trained),
        {
            "losses": losses,
            "training_epochs": trained_before + config.epochs,
            "validation_accuracy_before_retrain": accuracy(pruned, data, runtime),
            "validation_accuracy": accuracy(trained, data, runtime),
        },
    )


def work(config: Config, data: Data) -> float:
    """Count images times epochs."""
    return config.epochs * len(data.splits["backbone"])


def columns(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Show how the network was trained."""
    return {field.name: facts[field.name] for field in dataclasses.fields(NetworkTraining)}
