"""`prune`: prune a backbone to a compression ratio and train what is left, as the pruner's schedule says."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import count_parameters, enforce
from sharedlabel.backbones._restore import state
from sharedlabel.config import Plugin, canonical
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.records import NetworkTraining
from sharedlabel.scoring.data import Data
from sharedlabel.stages import _read
from sharedlabel.store import Artifact, Output
from sharedlabel.training import batched, compression
from sharedlabel.training.devices import device, takes_several
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
    start, ratio = _start(config, data, inputs)
    with rng.seeded(config.seed, "retrain"):
        compressed = compression.compress(start, ratio, config.pruner, _training(config, data, runtime), _early(inputs))
    return _output(config, data, inputs, runtime, *compressed)


def together(config: Config, runtime: TrainerConfig) -> Hashable | None:
    """Say what networks have in common that are trained in one program: shapes and recipes; any ratio, pruner, seed."""
    course = _course(config)
    one_by_one = any(batched.alone(recipe) for recipe, _, _ in course)
    if one_by_one or not (takes_several(runtime) and compression.keeps_shapes(config.pruner)):
        return None
    return canonical((config.backbone, course, config.precision))


def run_together(
    configs: Sequence[Config], data: Data, inputs: Sequence[Mapping[str, Artifact]], runtime: TrainerConfig
) -> list[Output]:
    """Prune backbones one after the other, and train what is left of them in one program."""
    pruned, streams = [], []
    for config, read in zip(configs, inputs, strict=True):
        start, ratio = _start(config, data, read)
        with rng.seeded(config.seed, "retrain"):
            training = _training(config, data, runtime)
            pruned.append(compression.cut(start, ratio, config.pruner, training, _early(read)))
            streams.append(rng.going_on(device(runtime)))
    trained: list[Backbone] = copy.deepcopy(pruned)
    losses: list[list[float]] = [[] for _ in configs]
    for recipe, salt, span in _course(configs[0]):
        seeds = [rng.derive(config.seed, salt) for config in configs]
        further = batched.train(trained, recipe, data, runtime, seeds, streams, span)
        losses = [before + after for before, after in zip(losses, further, strict=True)]
    return [
        _output(configs[at], data, inputs[at], runtime, pruned[at], trained[at], losses[at])
        for at in range(len(configs))
    ]


def _course(config: Config) -> list[tuple[TrainConfig, str, tuple[float, float]]]:
    return compression.course(config.pruner, config.train, config.retrain)


def _start(config: Config, data: Data, inputs: Mapping[str, Artifact]) -> tuple[Backbone, float]:
    """Return the network to prune, and the ratio to prune it to over its own parameters."""
    with rng.seeded(config.seed, "dense"):
        initialised = compression.initial(config.backbone, data)
    original = _read.backbone(config.backbone, data, inputs["dense"]) if "dense" in inputs else initialised
    start = _read.backbone(config.backbone, data, inputs["previous"]) if "previous" in inputs else original
    # The ratio is over all parameters of the dense network; the previous round may have made layers smaller.
    ratio = config.ratio * count_parameters(start) / count_parameters(original)
    if "previous" in inputs:  # which may have removed a part of a channel too much: then there is nothing to remove
        ratio = max(1.0, ratio)
    return start, ratio


def _training(config: Config, data: Data, runtime: TrainerConfig) -> compression.BackboneTrainer:
    return compression.BackboneTrainer(data, runtime, config.train, config.retrain, config.seed)


def _early(inputs: Mapping[str, Artifact]) -> Mapping[str, Tensor] | None:
    return inputs["early"].tensors() if "early" in inputs else None


def _output(
    config: Config,
    data: Data,
    inputs: Mapping[str, Artifact],
    runtime: TrainerConfig,
    pruned: Backbone,
    trained: Backbone,
    losses: list[float],
) -> Output:
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
