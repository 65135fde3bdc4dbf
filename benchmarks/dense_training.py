"""Throughput of dense training as a grid trains, against a bare PyTorch loop."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from benchmarks._measure import Result, interleaved, ratios, summarize
from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import TrainConfig, TrainerConfig
from sharedlabel.training.devices import device
from sharedlabel.training.fit import fit
from sharedlabel.training.loaders import ImageLoader, augment
from sharedlabel.training.modules import BackboneModule

BOUND = 0.9
# Nats; both train the same network on the same batches, so only rounding may differ.
TOLERANCE = 1e-2
CLASSES = 10
SHAPE = (3, 32, 32)
RUNTIME = TrainerConfig()


def run(quick: bool) -> list[Result]:
    """Time whole training runs of ResNet-8, set-up included, on the device that the package would choose."""
    if quick:
        return measured(256, 1, 1)
    # A GPU is done with the smaller set before a second has passed; the larger one has as many images as CIFAR-10.
    larger = measured(51_200, 2, 3) if device(RUNTIME).type == "cuda" else []
    return [*measured(5_120, 2, 7), *larger]


def measured(images: int, epochs: int, rounds: int) -> list[Result]:
    """Time training on some images for some epochs, in turns, as a grid does and by the bare loop."""
    config = TrainConfig(
        epochs=epochs, batch_size=128, optimizer="sgd", learning_rate=0.02, momentum=0.9, crop=4, flip=True
    )
    stream = rng.generator(0, "benchmarks", "images")
    pixels = torch.randint(0, 256, (images, *SHAPE), dtype=torch.uint8, generator=stream)
    labels = torch.randint(0, CLASSES, (images,), generator=stream)
    losses: dict[str, float] = {}

    def lightning() -> None:
        with rng.seeded(0, "benchmarks"):
            module = BackboneModule.of(network(), config)
            fit(module, ImageLoader(pixels, labels, torch.arange(images), config.batch_size, 0), RUNTIME, epochs)
        losses["lightning"] = module.losses()[-1]

    def plain() -> None:
        with rng.seeded(0, "benchmarks"):
            losses["bare"] = bare(network(), pixels, labels, config)

    ours, theirs = interleaved(lightning, plain, rounds)
    seen = images // config.batch_size * config.batch_size * epochs
    note = (
        f"ResNet-8, {images} synthetic images of 32 x 32, batch {config.batch_size}, {epochs} epochs: "
        f"{seen / min(ours):.0f} against {seen / min(theirs):.0f} images/s (best of {rounds})"
    )
    return [
        summarize(
            "dense training: share of a bare loop's throughput",
            "x",
            ratios(theirs, ours),
            bound=BOUND,
            better="at least",
            note=note,
        ),
        summarize(
            "dense training: difference of the last epoch's loss",
            "nats",
            [abs(losses["lightning"] - losses["bare"])],
            bound=TOLERANCE,
            note="same start, batches and augmentation: both did the same work",
        ),
    ]


def network() -> Backbone:
    """Return an untrained ResNet-8."""
    return resnet_cifar.build(resnet_cifar.Config(depth=8), SHAPE, CLASSES)


def bare(model: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig) -> float:
    """Train by the plainest loop there is and return the last epoch's mean loss (nats)."""
    target = device(RUNTIME)
    model.to(target).train()
    per_epoch = len(images) // config.batch_size
    optimizer, schedule = recipe(model, config, per_epoch * config.epochs)
    losses: list[Tensor] = []
    for epoch in range(config.epochs):
        order = torch.randperm(len(images), generator=rng.generator(0, "images", epoch))
        losses = []
        for step in range(per_epoch):
            rows = order[step * config.batch_size : (step + 1) * config.batch_size]
            batch, truth = images[rows].to(target), labels[rows].to(target)
            loss = nn.functional.cross_entropy(model(augment(batch, config.crop, config.flip)), truth)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
    return float(torch.stack(losses).mean())


def recipe(
    model: nn.Module, config: TrainConfig, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return SGD with weight decay on matrices only, and a linear warm-up followed by a cosine."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)
    rising = max(1, round(config.warmup * steps))

    def scale(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, scale)
