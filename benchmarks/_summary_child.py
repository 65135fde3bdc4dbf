"""Summarise a synthetic grid in a fresh process and print seconds and the peak of resident memory as JSON."""

from __future__ import annotations

import itertools
import json
import sys
import time

import torch
from torch import Tensor

from benchmarks._memory import peak
from benchmarks._rows import made_row
from sharedlabel import rng
from sharedlabel.config.sections import EvaluationConfig, SweetSpotConfig
from sharedlabel.records import Row
from sharedlabel.scoring.data import Data
from sharedlabel.summary.seeds import ScoredCell
from sharedlabel.summary.tables import summarize
from sharedlabel.types import Dataset, Role

SIZES = (1, 2, 4, 8, 16)


def _data(images: int) -> Data:
    labels = torch.arange(2 * images) % 10
    pixels = torch.zeros(2 * images, 1, 1, 1, dtype=torch.uint8)
    dataset = Dataset("made", pixels, labels, tuple("abcdefghij"), None, None, "")
    nothing, half = torch.arange(0), torch.arange(images)
    splits: dict[Role, Tensor] = {"backbone": nothing, "aggregator": nothing, "validation": half, "test": half + images}
    return Data(dataset, splits, torch.full((10,), 0.1, dtype=torch.float64), "")


def _rows(pruner: str, ratio: float, aggregator: str, seed: int) -> tuple[Row, ...]:
    names = {"pruner": pruner, "ratio": ratio, "aggregator": aggregator, "training": "frozen", "protocol": "iid"}
    return tuple(
        made_row(**names, seed=seed, split=split, n=n, cost_dense_passes=n / ratio)
        for split in ("validation", "test")
        for n in SIZES
    )


def main(images: int, aggregators: int, pruners: int, ratios: int, seeds: int) -> dict[str, float]:
    """Return what the summary of a grid of this size costs.

    Args:
        images: on validation, and as many on test.
        aggregators: number of methods.
        pruners: number of pruners.
        ratios: ratios of each pruner; the dense network comes on top.
        seeds: training seeds.
    """
    data, evaluation = _data(images), EvaluationConfig(n=SIZES, partitions=10)
    stream = rng.generator(0, "summary")
    networks = [
        ("none", 1.0),
        *itertools.product("abcdefghijklmnop"[:pruners], [2.0 ** (i + 1) for i in range(ratios)]),
    ]
    shape = (evaluation.partitions, images // 10 // SIZES[-1] * 10, len(SIZES))
    methods = []
    for (pruner, ratio), which, seed in itertools.product(networks, range(aggregators), range(seeds)):
        missing = 1 / torch.tensor(SIZES) + 0.01 * which + 0.1 * torch.rand(shape, generator=stream)
        scores = {"correct": (missing < 1).to(torch.uint8), "information": -missing}
        stored = {f"{role}.{name}": value for role in ("validation", "test") for name, value in scores.items()}
        methods.append(ScoredCell(_rows(pruner, ratio, f"aggregator {which}", seed), stored))
    started = time.perf_counter(), time.process_time()
    summary = summarize(methods, data, evaluation, SweetSpotConfig(replicates=1000))
    return {
        "seconds": time.perf_counter() - started[0],
        "processor_seconds": time.process_time() - started[1],
        "mebibytes": peak(),
        "comparisons": len(summary.comparisons),
    }


if __name__ == "__main__":
    print(json.dumps(main(*map(int, sys.argv[1:]))))
