"""`dense`: train the dense backbone on the backbone split."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._restore import state
from sharedlabel.config import Plugin, canonical
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.scoring.data import Data
from sharedlabel.store import Artifact, Output
from sharedlabel.training import batched, compression
from sharedlabel.training.devices import device, takes_several
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


def together(config: Config, runtime: TrainerConfig) -> Hashable | None:
    """Say what networks have in common that are trained in one program: all but the seed."""
    if batched.alone(config.train) or not takes_several(runtime):
        return None
    return canonical((config.backbone, config.train, config.precision))


def run_together(
    configs: Sequence[Config], data: Data, inputs: Sequence[Mapping[str, Artifact]], runtime: TrainerConfig
) -> list[Output]:
    """Train dense backbones of several seeds in one program."""
    del inputs
    backbones, streams = [], []
    for config in configs:
        with rng.seeded(config.seed, "dense"):
            backbones.append(compression.initial(config.backbone, data))
            streams.append(rng.going_on(device(runtime)))
    seeds = [config.seed for config in configs]
    losses = batched.train(backbones, configs[0].train, data, runtime, seeds, streams)
    return [_output(*made, data, runtime) for made in zip(backbones, losses, strict=True)]


def trained(config: Config, data: Data, runtime: TrainerConfig, share: float) -> Output:
    """Train a dense backbone for a share of its recipe."""
    with rng.seeded(config.seed, "dense"):
        backbone = compression.initial(config.backbone, data)
        losses = compression.train(backbone, config.train, data, runtime, config.seed, (0.0, share))
    return _output(backbone, losses, data, runtime)


def _output(backbone: Backbone, losses: list[float], data: Data, runtime: TrainerConfig) -> Output:
    return Output(state(backbone), {"losses": losses, "validation_accuracy": accuracy(backbone, data, runtime)})


def work(config: Config, data: Data) -> float:
    """Count images times epochs."""
    return config.epochs * len(data.splits["backbone"])
