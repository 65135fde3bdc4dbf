"""Seconds to score posteriors, calibration and intervals included."""

from __future__ import annotations

from benchmarks._measure import Result, seconds, summarize
from benchmarks._synthetic import test_set
from sharedlabel.aggregators.log_pool import LogPool
from sharedlabel.evaluation import posterior_over, score

SIZES = (1, 2, 4, 8, 16)


def run(quick: bool) -> list[Result]:
    """Time the scores of one aggregator on one split."""
    images, partitions, rounds = (500, 2, 1) if quick else (10_000, 10, 5)
    data = test_set(images, partitions)
    posterior = posterior_over(LogPool(data.shape.log_prior).eval(), data.sources, data.drawn, SIZES)

    def scored() -> object:
        return score(posterior, data.drawn, data.prior, SIZES, images, None, None)

    scored()
    note = f"{partitions} partitions of {images} images, n = {', '.join(map(str, SIZES))}; median of {rounds}"
    times = [seconds(scored) for _ in range(rounds)]
    return [summarize("scoring: all metrics with intervals and calibration", "s", times, note=note)]
