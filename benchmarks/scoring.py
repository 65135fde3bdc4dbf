"""Seconds to score posteriors, calibration and intervals included, and to draw replicates of the scores."""

from __future__ import annotations

import torch

from benchmarks._measure import Result, seconds, summarize
from benchmarks._synthetic import test_set
from sharedlabel import rng
from sharedlabel.aggregators.log_pool import LogPool
from sharedlabel.metrics.uncertainty import draw_multipliers, estimate, replicate
from sharedlabel.scoring.scores import posterior_over, score

SIZES = (1, 2, 4, 8, 16)
REPLICATES = 1000
BOUND = 5.0


def run(quick: bool) -> list[Result]:
    """Time the scores of one aggregator on one split, without and with replicates."""
    images, partitions, rounds = (500, 2, 1) if quick else (10_000, 10, 5)
    data = test_set(images, partitions)
    aggregator = LogPool(data.shape.log_prior).eval()
    posterior = posterior_over(aggregator, data.sources, data.drawn, SIZES)

    def scored() -> torch.Tensor:
        scores = score(posterior, data.drawn, data.prior, SIZES, images, None, None)
        return torch.cat([scores.correct.double(), scores.information.double()], dim=2)

    def replicated() -> object:
        estimated = estimate(scored(), data.drawn, SIZES * 2, images)
        return replicate([estimated], draw_multipliers(REPLICATES, images, rng.generator(0, "replicates")))

    scored()
    size = f"{partitions} partitions of {images} images, n = {', '.join(map(str, SIZES))}; median of {rounds}"
    without = seconds(scored, rounds)
    replicated()
    with_replicates = seconds(replicated, rounds)
    note = f"{REPLICATES} replicates of n-accuracy and information at every n, scores included; {size}"
    return [
        summarize("scoring: all metrics with intervals and calibration", "s", without, note=size),
        summarize(f"scoring with {REPLICATES} bootstrap replicates", "s", with_replicates, bound=BOUND, note=note),
    ]
