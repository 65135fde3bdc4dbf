"""What the parts of `python -m benchmarks.gpu` share: where they run, on what, and a clock that waits for the GPU."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sharedlabel.config import Experiment, parse
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.grid import Grid, prepare
from sharedlabel.training.devices import device

Facts = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """Where the parts run, and on what.

    Attributes:
        data: zip or folder of `train/<class>/*` and `test/<class>/*`.
        output: folder of all that is written.
        accelerator: as `trainer.accelerator` takes it.
        tiny: as little of everything as shows that it runs.
    """

    data: Path
    output: Path
    accelerator: str
    tiny: bool

    @property
    def device(self) -> torch.device:
        """Where networks compute."""
        return device(TrainerConfig(accelerator=self.accelerator))

    def experiment(self, *options: str) -> Experiment:
        """Return an experiment on the images, most of which train backbones."""
        given = [
            f"--data={{name: imagefolder, path: '{self.data}', label: cifar10-jpeg}}",
            f"--data_root={self.output / 'data'}",
            f"--output={self.output}",
            "--split={backbone: 0.96, aggregator: 0.02, validation: 0.02}",
            f"--trainer={{accelerator: {self.accelerator}, precision: bf16-mixed, "
            "channels_last: true, cudnn_benchmark: true}",
            "--aggregators=[log_pool]",
            "--comparison.reference=log_pool",
            "--evaluation.n=[1, 2]",
            "--tracking=none",
        ]
        if self.tiny:
            given += ["--split={backbone: 0.6, aggregator: 0.2, validation: 0.2}", "--split.limit=20"]
        return parse([*given, *options])[0]

    def grid(self, *options: str) -> Grid:
        """Return an experiment with its images, checked."""
        return prepare(self.experiment(*options))

    def network(self, depth: int) -> str:
        """Return the option of a ResNet for small images; of 8 layers where all is tiny, of torchvision for 18."""
        if self.tiny:
            return "--backbones=[{name: resnet_cifar, label: resnet8, depth: 8}]"
        if depth == 18:
            return "--backbones=[{name: torchvision_model, label: resnet18, architecture: resnet18}]"
        return f"--backbones=[{{name: resnet_cifar, label: resnet{depth}, depth: {depth}}}]"


def seconds(call: Callable[[], object], target: torch.device) -> float:
    """Return the seconds of a call on the wall, until the GPU has done all of it."""
    _wait(target)
    began = time.perf_counter()
    call()
    _wait(target)
    return time.perf_counter() - began


def quickest(call: Callable[[], object], target: torch.device, rounds: int) -> float:
    """Return the least seconds of several calls, after one that does not count."""
    call()
    return min(seconds(call, target) for _ in range(rounds))


def _wait(target: torch.device) -> None:
    if target.type == "cuda":
        torch.cuda.synchronize(target)
