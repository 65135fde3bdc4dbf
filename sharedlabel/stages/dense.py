"""`dense`: train the dense backbone on the backbone split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sharedlabel import rng
from sharedlabel.backbones._restore import state
from sharedlabel.config import Plugin
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.scoring.data import Data
from sharedlabel.store import Artifact, Output
from sharedlabel.training import compression
from sharedlabel.training.embedding import accuracy

VERSION = 1


@dataclass(frozen=True)
class Config:
    """What a call depends on."""

    backbone: Plugin
    train: TrainConfig
    precision: str
    seed: int

    @property
    def epochs(self) -> float:
        """Passes over the backbone split."""
        return float(self.train.epochs)


def run(config: Config, data: Data, inputs: Mapping[str, Artifact], runtime: TrainerConfig) -> Output:
    """Train the dense backbone on the backbone split."""
    del inputs
    return trained(config, data, runtime, 1.0)


def trained(config: Config, data: Data, runtime: TrainerConfig, share: float) -> Output:
    """Train a dense backbone for a share of its recipe."""
    with rng.seeded(config.seed, "dense"):
        backbone = compression.initial(config.backbone, data)
        losses = compression.train(backbone, config.train, data, runtime, config.seed, (0.0, share))
    return Output(state(backbone), {"losses": losses, "validation_accuracy": accuracy(backbone, data, runtime)})


def work(config: Config, data: Data) -> float:
    """Count images times epochs."""
    return config.epochs * len(data.splits["backbone"])
