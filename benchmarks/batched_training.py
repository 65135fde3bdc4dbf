"""Several compressed networks in one batched program, against one after the other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks._measure import Result, interleaved, ratios, summarize
from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.data import tuples
from sharedlabel.pruners import _methods, magnitude
from sharedlabel.pruners._base import Context
from sharedlabel.scoring.data import Data
from sharedlabel.training import batched, compression
from sharedlabel.training.devices import device
from sharedlabel.types import Dataset

# Nats; each network sees the same batches both ways, so only rounding may differ.
TOLERANCE = 1e-2
CLASSES = 10
RUNTIME = TrainerConfig()
RECIPE = TrainConfig(epochs=2, batch_size=64, optimizer="sgd", learning_rate=0.02, crop=1, flip=True)
RATIOS = (2.0, 4.0, 8.0, 16.0)  # of the networks, in turns


def run(quick: bool) -> list[Result]:
    """Time whole retrainings, set-up included, on the device that the package would choose."""
    large = device(RUNTIME).type == "cuda"
    counts = (2,) if quick else (4, 16, 64) if large else (4, 16)
    images, rounds = (64, 1) if quick else (8_192, 5) if large else (256, 3)
    return [
        result
        for name, shape, build in (("MLP 512-256 on 8 x 8", (1, 8, 8), _perceptron), ("ResNet-8", (3, 32, 32), _resnet))
        for count in counts
        for result in _measured(name, shape, build, count, images, rounds)
    ]


def _measured(
    name: str,
    shape: tuple[int, int, int],
    build: Callable[[tuple[int, int, int]], Backbone],
    count: int,
    images: int,
    rounds: int,
) -> list[Result]:
    data, seeds = _data(shape, images), range(count)
    losses: dict[str, list[list[float]]] = {}

    def networks() -> list[Backbone]:
        return [_pruned(lambda: build(shape), seed) for seed in seeds]

    def one_by_one(recipe: TrainConfig = RECIPE) -> None:
        losses["alone"] = []
        for seed, network in zip(seeds, networks(), strict=True):
            with rng.seeded(seed, "retrain"):
                losses["alone"].append(compression.train(network, recipe, data, RUNTIME, seed))

    def together(recipe: TrainConfig = RECIPE) -> None:
        streams = []
        for seed in seeds:
            with rng.seeded(seed, "retrain"):
                streams.append(rng.going_on(device(RUNTIME)))
        losses["together"] = batched.train(networks(), recipe, data, RUNTIME, seeds, streams)

    slow, fast = interleaved(one_by_one, together, rounds)
    difference = (torch.tensor(losses["together"]) - torch.tensor(losses["alone"])).abs().max()
    seen, what = count * images * RECIPE.epochs, f"retraining of {count} networks, batched against one by one: {name}"
    speeds = f"{seen / min(fast):.0f} against {seen / min(slow):.0f} images/s (best of {rounds})"
    operations = [_operations(call) for call in (one_by_one, together)]
    return [
        summarize(what, "x", ratios(slow, fast), note=f"batch {RECIPE.batch_size}, {device(RUNTIME).type}: {speeds}"),
        summarize(
            f"{what}: operations of torch in an epoch",
            "x",
            [operations[0] / operations[1]],
            note=f"{operations[1]:.0f} against {operations[0]:.0f}",
        ),
        summarize(f"{what}: difference of losses", "nats", [float(difference)], bound=TOLERANCE),
    ]


def _operations(train: Callable[[TrainConfig], None]) -> int:
    """Count the operations of an epoch, set-up left out: what a small network waits for on a GPU."""
    counted: list[int] = []
    for epochs in (1, 2):
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            train(dataclasses.replace(RECIPE, epochs=epochs))
        counted.append(sum(int(one.count) for one in profiled.key_averages() if one.key.startswith("aten::")))
    return counted[1] - counted[0]


def _data(shape: tuple[int, int, int], images: int) -> Data:
    stream = rng.generator(0, "benchmarks", "images")
    pixels = torch.randint(0, 256, (images, *shape), dtype=torch.uint8, generator=stream)
    labels = torch.randint(0, CLASSES, (images,), generator=stream)
    dataset = Dataset("noise", pixels, labels, tuple("abcdefghij"), None, None, "")
    return Data(dataset, {"backbone": torch.arange(images)}, tuples.prior(labels, "uniform", CLASSES), "")


def _pruned(build: Callable[[], Backbone], seed: int) -> Backbone:
    with rng.seeded(seed, "benchmarks"):
        network = build()
    context = Context(generator=rng.generator(seed, "prune"))
    return _methods.prune(magnitude, network, RATIOS[seed % len(RATIOS)], magnitude.Config(), context)


def _perceptron(shape: tuple[int, int, int]) -> Backbone:
    return mlp.build(mlp.Config(widths=(512, 256)), shape, CLASSES)


def _resnet(shape: tuple[int, int, int]) -> Backbone:
    return resnet_cifar.build(resnet_cifar.Config(depth=8), shape, CLASSES)
