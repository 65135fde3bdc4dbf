"""Networks that are trained in one program end where each ends alone, but for rounding."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.errors import TrainingError
from sharedlabel.files.unfinished import Unfinished
from sharedlabel.pruners import _methods, magnitude, random
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._masks import masked, removed
from sharedlabel.scoring.data import Data
from sharedlabel.training import batched, compression, resume
from sharedlabel.types import Dataset

CPU = TrainerConfig(accelerator="cpu")
SHAPE, CLASSES = (2, 8, 8), 3
RECIPE = TrainConfig(epochs=2, batch_size=16, crop=1, flip=True, label_smoothing=0.1)
SGD = dataclasses.replace(RECIPE, optimizer="sgd", learning_rate=0.02)
SEEDS = (3, 4, 4)


@pytest.fixture(scope="module")
def data() -> Data:
    labels = torch.arange(96) % CLASSES
    noise = torch.randint(0, 120, (96, *SHAPE), generator=rng.generator(0, "images"))
    images = (noise + 60 * labels[:, None, None, None]).to(torch.uint8)
    dataset = Dataset("noise", images, labels, ("a", "b", "c"), None, None, "")
    parts = torch.arange(96).split([60, 12, 12, 12])
    split = dict(zip(("backbone", "aggregator", "validation", "test"), parts, strict=True))
    return Data(dataset, split, tuples.prior(labels, "uniform", CLASSES), "key")


def resnet() -> Backbone:
    return resnet_cifar.build(resnet_cifar.Config(depth=8, width=4), SHAPE, CLASSES)


def perceptron() -> Backbone:
    return mlp.build(mlp.Config(widths=(24, 16)), SHAPE, CLASSES)


def networks(build: Any) -> list[Backbone]:
    """One that is pruned by magnitude, one at random, and one that is not pruned."""
    made = []
    for seed, pruner in zip(SEEDS, (magnitude, random, None), strict=True):
        with rng.seeded(seed, "network"):
            network = build()
        if pruner is not None:
            context = Context(generator=rng.generator(seed, "prune"))
            network = _methods.prune(pruner, network, 2.0, pruner.Config(), context)
        made.append(network)
    return made


def alone(
    made: list[Backbone], recipe: TrainConfig, data: Data, runtime: TrainerConfig = CPU, **options: Any
) -> list[list[float]]:
    losses = []
    for seed, network in zip(SEEDS, made, strict=True):
        with rng.seeded(seed, "retrain"):
            losses.append(compression.train(network, recipe, data, runtime, seed, **options))
    return losses


def together(
    made: list[Backbone], recipe: TrainConfig, data: Data, runtime: TrainerConfig = CPU, **options: Any
) -> list[list[float]]:
    streams = []
    for seed in SEEDS:
        with rng.seeded(seed, "retrain"):
            streams.append(rng.going_on(torch.device("cpu")))
    return batched.train(made, recipe, data, runtime, SEEDS, streams, **options)


def assert_close(one: Backbone, other: Backbone) -> None:
    state, expected = one.state_dict(), other.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize(("build", "recipe"), [(perceptron, RECIPE), (perceptron, SGD), (resnet, SGD)])
@pytest.mark.parametrize("span", [(0.0, 1.0), (0.4, 1.0)])
def test_each_network_ends_where_it_ends_alone(build, recipe, span, data):
    ours, theirs = networks(build), networks(build)
    losses = together(ours, recipe, data, span=span)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(alone(theirs, recipe, data, span=span)))
    for one, other, start in zip(ours, theirs, networks(build), strict=True):
        assert_close(one, other)
        assert not torch.equal(one.classifier.weight, start.classifier.weight)


@pytest.mark.parametrize(("precision", "tolerance"), [("64-true", 1e-6), ("bf16-mixed", 0.05)])
def test_other_precisions_are_lightnings_and_stored_in_32_bits(precision, tolerance, data):
    ours, theirs, runtime = networks(resnet), networks(resnet), dataclasses.replace(CPU, precision=precision)
    losses, expected = together(ours, SGD, data, runtime), alone(theirs, SGD, data, runtime)
    torch.testing.assert_close(torch.tensor(losses), torch.tensor(expected), rtol=0, atol=tolerance)
    for one, other in zip(ours, theirs, strict=True):
        for name, tensor in other.state_dict().items():
            torch.testing.assert_close(one.state_dict()[name], tensor, rtol=0, atol=tolerance, msg=name)


def test_removed_weights_stay_exactly_zero_and_all_others_are_trained(data):
    made, start = networks(resnet), networks(resnet)
    together(made, RECIPE, data)
    for network, before in zip(made[:2], start, strict=False):
        assert removed(network) == removed(before) > 0
        for (name, weight, mask), (_, former, kept) in zip(masked(network), masked(before), strict=True):
            assert torch.equal(mask, kept), name
            assert (weight[mask == 0] == 0).all(), name
            assert (weight[mask == 1] != former[mask == 1]).all(), name
    assert removed(made[2]) == 0
    assert list(masked(made[2])) == []


class Counting(TorchDispatchMode):
    """Counts the operations that a device would be given."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def test_many_networks_take_little_more_operations_than_one(data):
    def operations(train: Any, epochs: int) -> int:
        with Counting() as counting:
            train(networks(resnet), dataclasses.replace(SGD, epochs=epochs), data)
        return counting.count

    single, several = (operations(train, 3) - operations(train, 1) for train in (alone, together))
    assert several < 0.6 * single  # of three networks


def test_networks_with_the_same_seed_and_numbers_stay_equal(data):
    made = networks(perceptron)[:1] * 3
    made = [copy.deepcopy(network) for network in made]
    streams = [rng.generator(0, "stream") for _ in made]
    batched.train(made, RECIPE, data, CPU, (1, 1, 2), streams)
    assert torch.equal(made[0].classifier.weight, made[1].classifier.weight)
    assert not torch.equal(made[0].classifier.weight, made[2].classifier.weight)


def test_networks_that_differ_by_more_than_numbers_are_refused(data):
    made = [*networks(perceptron)[:2], mlp.build(mlp.Config(widths=(24, 12)), SHAPE, CLASSES)]
    with pytest.raises(TrainingError, match=r"expected networks that are alike.*body\.3\.weight"):
        together(made, RECIPE, data)


def test_a_loss_that_is_not_finite_ends_the_training_of_all(data):
    made = networks(perceptron)
    with torch.no_grad():
        made[1].classifier.weight.fill_(torch.inf)
    with pytest.raises(TrainingError, match=r"expected a finite loss, got \[.*nan.*\] in epoch 1"):
        together(made, RECIPE, data)


def test_random_numbers_that_a_network_draws_itself_are_refused(data):
    body = nn.Sequential(nn.Flatten(), nn.Linear(128, 8), nn.Dropout(0.5))
    made = [Backbone(copy.deepcopy(body), nn.Linear(8, CLASSES), SHAPE) for _ in SEEDS]
    with pytest.raises(RuntimeError, match="random"):
        together(made, RECIPE, data)


def test_nothing_is_trained_where_nothing_is_to_be_trained(data):
    made = [network.requires_grad_(False) for network in networks(perceptron)]
    assert together(made, RECIPE, data) == [[], [], []]
    assert together(networks(perceptron), RECIPE, data, span=(1.0, 1.0)) == [[], [], []]


class Killed(BaseException):
    """What no code catches."""


def test_a_training_that_is_killed_goes_on_with_the_same_numbers(data, tmp_path, monkeypatch):
    def run(folder: str) -> list[dict[str, Tensor]]:
        made = networks(resnet)
        states = Unfinished(tmp_path / folder, tmp_path / "partial")
        with resume.at(resume.Workplace(states, 0.0, tmp_path / "logs")):
            together(made, dataclasses.replace(RECIPE, epochs=3), data)
        return [network.state_dict() for network in made]

    (tmp_path / "partial").mkdir()
    undisturbed, write, steps = run("undisturbed"), resume.Workplace.write, []

    def killed(self: resume.Workplace, number: int, save: Any) -> None:
        write(self, number, save)
        raise Killed

    monkeypatch.setattr(resume.Workplace, "write", killed)
    with pytest.raises(Killed):
        run("killed")
    monkeypatch.undo()
    step = batched.BackbonesTraining.training_step
    monkeypatch.setattr(
        batched.BackbonesTraining, "training_step", lambda self, batch: (steps.append(1), step(self, batch))[1]
    )
    resumed = run("killed")
    assert len(steps) == 2 * (60 // RECIPE.batch_size)  # of three epochs
    for one, other in zip(resumed, undisturbed, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in other)
