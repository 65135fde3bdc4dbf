"""Memory of the features stage at 1x and at 10x the images."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks._measure import Result, summarize
from benchmarks._memory import growth

BOUND = 1.3
# MiB that may come on top: index arrays, labels, and the allocator's slack.
CONSTANT = 32.0
SHAPE = (3, 16, 16)
CHUNK = 10_000


def run(quick: bool) -> list[Result]:
    """Embed memory-mapped images in fresh processes and compare the growth of anonymous memory.

    The smaller set already fills several shards, so both sizes reach the stage's steady state. Mapped pages of the
    image file do not count.
    """
    images, rounds = (2_000, 1) if quick else (50_000, 5)
    small: list[float] = []
    large: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        files = [_images(Path(folder) / f"{times}.npy", times * images) for times in (1, 10)]
        for index in range(rounds):
            for values, file in ((small, files[0]), (large, files[1])):
                store = Path(folder) / f"{file.stem}-{index}"
                values.append(growth(["-m", "benchmarks._features_child", str(file), str(store)]))
    note = (
        f"{images} and {10 * images} memory-mapped images of 16 x 16, MLP with 256-wide embeddings, real stage and "
        f"store: {statistics.median(small):.0f} and {statistics.median(large):.0f} MiB of anonymous memory above the "
        f"start of the stage (median of {rounds}); ratio is (10x growth - {CONSTANT:.0f} MiB) / 1x growth"
    )
    values = [(ten - CONSTANT) / one for one, ten in zip(small, large, strict=True)]
    return [summarize("features: memory at 10x the images", "x", values, bound=BOUND, note=note)]


def _images(path: Path, count: int) -> Path:
    """Write random images without holding them in memory."""
    random = np.random.default_rng(0)
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(count, *SHAPE))
    for start in range(0, count, CHUNK):
        part = array[start : start + CHUNK]
        part[:] = random.integers(0, 256, part.shape, dtype=np.uint8)
    array.flush()
    return path
