"""What logging costs a training: `python -m benchmarks.watching [IMAGES] [EPOCHS] [TURNS]`.

Trains ResNet-8 on made-up images of CIFAR-10's size, alone, with the logger `csv` and with `wandb` (offline), in turns.
Prints the processor's seconds of each, those of W&B's own process included, and the median of their ratios to training
alone, in which Lightning's loop counts, too: alone, there is a plain one. Since whole trainings differ by some per cent
from turn to turn, it also prints what a stopwatch at all that watches says, as a share of the rest of that training.
"""

from __future__ import annotations

import functools
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wandb
from pytorch_lightning.loggers import CSVLogger

from sharedlabel import grid
from sharedlabel.config import parse
from sharedlabel.store import Store
from sharedlabel.training import live, loggers

LOGGERS = ("none", "csv", "wandb")
# What watches: validation, the pulse of single steps, and the loggers themselves.
WATCHING = (
    (loggers.Look, "on_train_epoch_end"),
    (loggers.Pulse, "on_before_optimizer_step"),
    (loggers, "logger"),
    *((kind, name) for kind in (CSVLogger, live.LiveLogger) for name in ("log_metrics", "log_hyperparams")),
    *((kind, name) for kind in (CSVLogger, live.LiveLogger) for name in ("save", "finalize")),
)


def main(images: int = 4000, epochs: int = 3, turns: int = 5) -> None:
    """Measure and print."""
    os.environ["WANDB_MODE"] = "offline"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = _images(Path(folder), images)
        seconds(data, epochs, "wandb", Path(folder) / "warm")  # imports
        taken: dict[str, list[tuple[float, float]]] = {name: [] for name in LOGGERS}
        for turn in range(turns):
            for name in LOGGERS:
                taken[name].append(seconds(data, epochs, name, Path(folder) / f"{name}{turn}"))
    for name in LOGGERS:
        alone = [one for one, _ in taken["none"]]
        ratio = statistics.median(one / other for (one, _), other in zip(taken[name], alone, strict=True))
        median = statistics.median(one for one, _ in taken[name])
        shares = sorted(watching / (one - watching) for one, watching in taken[name])
        print(
            f"{name}: {median:.2f} s, {ratio:.3f} of training alone; watching {statistics.median(shares):.2%} of the "
            f"rest ({shares[0]:.2%} to {shares[-1]:.2%})"
        )


def _images(folder: Path, count: int) -> Path:
    """Write as many images to train on; half as many again are for all else."""
    generator, labels = np.random.default_rng(0), np.arange(2 * count) % 10
    images = generator.integers(0, 256, (2 * count, 3, 32, 32)).astype(np.uint8)
    np.savez(folder / "images.npz", images=images, labels=labels)
    return folder / "images.npz"


def seconds(data: Path, epochs: int, logger: str, folder: Path) -> tuple[float, float]:
    """Return the processor's seconds of a training, and those of them that watching took.

    Processes that the training starts and ends count, and belong to what watches.
    """
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
    before, children = _spent(resource.RUSAGE_SELF), _spent(resource.RUSAGE_CHILDREN)
    with _stopwatch() as watching:
        grid.run_node(dense, prepared, Store(folder / "store"), lambda *_: None)
        if logger == "wandb":
            wandb.teardown()  # its process ends, and its time counts
    others = _spent(resource.RUSAGE_CHILDREN) - children
    return _spent(resource.RUSAGE_SELF) - before + others, watching[0] + others


@contextmanager
def _stopwatch() -> Iterator[list[float]]:
    """Measure the processor's seconds of this process in all that watches."""
    taken, inside, former = [0.0], [0], []

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def watched(*given: Any, **named: Any) -> Any:
            inside[0] += 1
            began = time.process_time()
            try:
                return function(*given, **named)
            finally:
                inside[0] -= 1
                if not inside[0]:  # what one calls of another counts once
                    taken[0] += time.process_time() - began

        return watched

    for owner, name in WATCHING:
        former.append((owner, name, getattr(owner, name)))
        setattr(owner, name, timed(former[-1][2]))
    try:
        yield taken
    finally:
        for owner, name, function in reversed(former):
            setattr(owner, name, function)


def _spent(who: int) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
