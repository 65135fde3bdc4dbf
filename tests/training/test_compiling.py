"""Compiled trainings take the steps of others. Dynamo is real here, its backend is not."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones._base import Backbone
from sharedlabel.config import resolve
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.pruners._masks import masked
from sharedlabel.scoring.data import Data
from sharedlabel.training import compression
from sharedlabel.training.compiling import compiled
from sharedlabel.training.embedding import accuracy
from sharedlabel.types import ROLES, Dataset

CPU = TrainerConfig(accelerator="cpu")
CLASSES = 3
RECIPE = TrainConfig(epochs=2, batch_size=8, optimizer="sgd", crop=1, flip=True)


@pytest.fixture(autouse=True)
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[str | None]:
    """Return the mode of every graph that is compiled. Checks of types cannot be compiled, so they are left out."""
    modes: list[str | None] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor], mode: str | None = None) -> object:
        del inputs
        modes.append(mode)
        return graph.forward

    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    torch.compiler.reset()
    return modes


@pytest.fixture
def data() -> Data:
    labels = torch.arange(72) % CLASSES
    images = torch.randint(0, 256, (72, 1, 4, 4), dtype=torch.uint8, generator=rng.generator(0, "images"))
    dataset = Dataset("noise", images, labels, ("a", "b", "c"), None, None, "")
    parts = zip(ROLES, torch.arange(72).split([36, 12, 12, 12]), strict=True)
    return Data(dataset, dict(parts), tuples.prior(labels, "uniform", CLASSES), "key")


def network(width: int = 6) -> Backbone:
    body = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    return Backbone(body, nn.Linear(width, CLASSES), (1, 4, 4))


def pruned(data: Data, schedule: Any, how: Any) -> tuple[Backbone, list[float], float]:
    runtime = dataclasses.replace(CPU, compile=how)
    training = compression.BackboneTrainer(data, runtime, RECIPE, RECIPE, seed=3)
    plugin = resolve("pruners", {"name": "magnitude", "schedule": schedule})
    with rng.seeded(0, "dense"):
        start = network()
        early = None
        if schedule == "initial":  # a part of a training is one, too
            training.from_start(start, (0.0, 0.3))
        _, trained, losses = compression.compress(start, 2.0, plugin, training, early)
    return trained, losses, accuracy(trained, data, runtime)


GRADUAL = {"when": "gradual", "steps": 3, "until": 0.8}


@pytest.mark.parametrize("how", [True, "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("schedule", ["trained", "initial", GRADUAL])
def test_masks_augmentation_spans_and_evaluation_are_those_of_trainings_that_are_not_compiled(
    data: Data, schedule: Any, how: Any, graphs: list[str | None]
) -> None:
    usual = pruned(data, schedule, False)
    assert graphs == []
    ours = pruned(data, schedule, how)
    assert set(graphs) == {None if how is True else how}
    assert ours[1:] == usual[1:]
    own, others = ours[0].state_dict(), usual[0].state_dict()
    assert own.keys() == others.keys()
    assert [name for name in own if not torch.equal(own[name], others[name])] == []
    masks = [(weight, mask) for _, weight, mask in masked(ours[0])]
    assert masks
    assert all(bool((weight[mask == 0] == 0).all()) for weight, mask in masks)


def test_networks_of_the_same_shapes_are_compiled_once_and_others_stay_compiled(graphs: list[str | None]) -> None:
    """Beyond the limit on recompilations torch would run eagerly."""
    with torch._dynamo.config.patch(recompile_limit=1):
        for width in (2, 2, 3, 4, 4):
            compiled(network(width), True)(torch.zeros(2, 1, 4, 4))
    assert len(graphs) == 3
