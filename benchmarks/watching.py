"""What logging costs a training: `python -m benchmarks.watching [IMAGES] [EPOCHS] [TURNS]`.

Trains ResNet-8 on made-up images of CIFAR-10's size, alone, with the logger `csv` and with `wandb` (offline), in turns.
Prints the processor's seconds of each, those of W&B's own process included, and the median of their ratios to training
alone.
"""

from __future__ import annotations

import os
import resource
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import wandb

from sharedlabel import grid
from sharedlabel.config import parse
from sharedlabel.store import Store

LOGGERS = ("none", "csv", "wandb")


def main(images: int = 4000, epochs: int = 3, turns: int = 5) -> None:
    """Measure and print."""
    os.environ["WANDB_MODE"] = "offline"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = _images(Path(folder), images)
        seconds(data, epochs, "wandb", Path(folder) / "warm")  # imports
        taken: dict[str, list[float]] = {name: [] for name in LOGGERS}
        for turn in range(turns):
            for name in LOGGERS:
                taken[name].append(seconds(data, epochs, name, Path(folder) / f"{name}{turn}"))
    for name in LOGGERS:
        ratio = statistics.median(one / alone for one, alone in zip(taken[name], taken["none"], strict=True))
        print(f"{name}: {statistics.median(taken[name]):.2f} s, {ratio:.3f} of training alone")


def _images(folder: Path, count: int) -> Path:
    """Write as many images to train on; half as many again are for all else."""
    generator, labels = np.random.default_rng(0), np.arange(2 * count) % 10
    images = generator.integers(0, 256, (2 * count, 3, 32, 32)).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder / "images.npz"


def seconds(data: Path, epochs: int, logger: str, folder: Path) -> float:
    """Return the processor's seconds of a training, those of processes that it starts and ends included."""
    experiment, _ = parse(
        [
            f"--data={{name: arrays, path: {data}}}",
            "--backbones=[{name: resnet_cifar, depth: 8}]",
            "--pruners=[none]",
            "--ratios=[1]",
            "--aggregators=[log_pool]",
            f"--dense.epochs={epochs}",
            "--split.backbone=0.5",
            f"--trainer.logger={logger}",
            "--tracking=offline",
            f"--output={folder}",
        ]
    )
    prepared = grid.prepare(experiment)
    dense = next(node for node in prepared.cells[0].pruned.chain() if node.stage == "dense")
    before = _spent()
    grid.run_node(dense, prepared, Store(folder / "store"), lambda *_: None)
    if logger == "wandb":
        wandb.teardown()  # its process ends, and its time counts
    return _spent() - before


def _spent() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
