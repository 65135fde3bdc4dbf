"""On a GPU: a network trained to an accuracy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from benchmarks._gpu import Facts, Setting, seconds
from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import resolve
from sharedlabel.config.sections import TrainConfig
from sharedlabel.grid import Grid
from sharedlabel.training import compression
from sharedlabel.training.devices import tuned
from sharedlabel.training.embedding import embed
from sharedlabel.types import Role

GOAL = {"test_accuracy": 0.92, "seconds": 60.0}
# SGD with Nesterov momentum, a rate that rises for a fifth of the steps and then falls to zero, large batches: how
# ResNets are trained on CIFAR-10 in minutes, in options of a configuration.
RECIPE = TrainConfig(
    epochs=20, batch_size=512, optimizer="sgd", learning_rate=0.2, warmup=0.2, label_smoothing=0.1, crop=4, flip=True
)
TINY = dataclasses.replace(RECIPE, epochs=2, batch_size=8)


def eager(setting: Setting) -> Iterator[Facts]:
    """Train ResNet-18 as the stage `dense` does, after an epoch that wakes the GPU up."""
    prepared = _prepared(setting)
    recipe = TINY if setting.tiny else RECIPE
    waking = seconds(lambda: train(prepared, dataclasses.replace(recipe, epochs=1)), setting.device)
    yield {**_trained(setting, prepared, recipe), "seconds_of_the_epoch_before": waking}


def compiled(setting: Setting) -> Iterator[Facts]:
    """Train it again as CUDA graphs; the seconds hold the compilation."""
    yield _trained(setting, _prepared(setting, "--trainer.compile=reduce-overhead"), TINY if setting.tiny else RECIPE)


def _prepared(setting: Setting, *options: str) -> Grid:
    return setting.grid(setting.network(18), "--pruners=[magnitude]", "--ratios=[1]", *options)


def _trained(setting: Setting, prepared: Grid, recipe: TrainConfig) -> Facts:
    made: list[tuple[Backbone, list[float]]] = []
    taken = seconds(lambda: made.append(train(prepared, recipe)), setting.device)
    ((network, losses),) = made
    return {
        "network": next(iter(prepared.backbones)),
        "images": len(prepared.data.splits["backbone"]),
        "recipe": dataclasses.asdict(recipe),
        "compile": prepared.experiment.trainer.compile,
        "seconds": taken,
        "test_accuracy": _accuracy(prepared, network, "test"),
        "validation_accuracy": _accuracy(prepared, network, "validation"),
        "losses": losses,
        "goal": GOAL,
    }


def train(prepared: Grid, recipe: TrainConfig) -> tuple[Backbone, list[float]]:
    """Train the first network of a grid from its start; return it, and the loss of every epoch."""
    experiment, data = prepared.experiment, prepared.data
    with rng.seeded(0, "dense"), tuned(experiment.trainer):
        network = compression.initial(resolve("backbones", experiment.backbones[0]), data)
        losses = compression.train(network, recipe, data, experiment.trainer, 0)
    return network, losses


def _accuracy(prepared: Grid, network: Backbone, role: Role) -> float:
    """Return the share of single images of a split that are right."""
    data = prepared.data
    shards = embed(network, data.dataset.images, data.splits[role], prepared.experiment.trainer)
    predicted = torch.cat([shard["logits"].argmax(-1) for shard in shards])
    return float((predicted == data.labels(role)).double().mean())
