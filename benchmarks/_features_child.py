"""Run the features stage on memory-mapped images in a process of its own; its parent watches the memory."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch

from sharedlabel import rng
from sharedlabel.backbones._restore import state
from sharedlabel.config import resolve
from sharedlabel.config.sections import TrainerConfig
from sharedlabel.plugins import load
from sharedlabel.scoring.data import FEATURE_ROLES, Data
from sharedlabel.stages import features
from sharedlabel.store import Output, Store
from sharedlabel.types import Dataset

CLASSES = 10


def main(file: Path, folder: Path) -> None:
    """Prepare everything, say so, wait for a line, then compute and store the features.

    Args:
        file: `.npy` of images, `uint8 [N C H W]`.
        folder: of the store.
    """
    data = _data(file)
    plugin = resolve("backbones", {"name": "mlp", "widths": [512, 256]})
    with rng.seeded(0, "benchmarks"):
        backbone = load("backbones", plugin.name).build(plugin.config, data.dataset.image_shape, CLASSES)
    store = Store(folder)
    dense = store.save("dense", "dense", Output(state(backbone)), {}, time.perf_counter())
    print("ready", flush=True)
    sys.stdin.readline()
    output = features.run(features.Config(plugin, "32-true"), data, {"backbone": dense}, TrainerConfig())
    store.save("features", "features", output, {}, time.perf_counter())


def _data(file: Path) -> Data:
    # Mapped as the package maps decoded images.
    images = torch.from_numpy(np.load(file, mmap_mode="c"))
    labels = torch.arange(len(images)) % CLASSES
    dataset = Dataset("synthetic", images, labels, tuple(map(str, range(CLASSES))), None, None, file.stem)
    splits = {role: torch.arange(start, len(images), len(FEATURE_ROLES)) for start, role in enumerate(FEATURE_ROLES)}
    return Data(dataset, splits, torch.full((CLASSES,), 1 / CLASSES, dtype=torch.float64), "synthetic")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
