"""Seconds to score posteriors, intervals included, and to draw replicates; groups of any size against one size."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks._measure import Result, interleaved, ratios, seconds, summarize
from benchmarks._synthetic import test_set
from sharedlabel import rng
from sharedlabel.aggregators.log_pool import LogPool
from sharedlabel.data.tuples import partition
from sharedlabel.metrics.uncertainty import draw_multipliers, estimate, replicate
from sharedlabel.scoring.scores import posterior_over, score

SIZES = (1, 2, 4, 8, 16)
REPLICATES = 1000
BOUND, RAGGED = 5.0, 1.3
LONGEST = 31  # instances of a group, so that groups from 1 on have as many as tuples of 16 in the mean


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
        _ragged(images, partitions, rounds),
    ]


def _ragged(images: int, partitions: int, rounds: int) -> Result:
    """Score groups of 1 to 31 instances and groups of 16, of as many instances in all, in turns.

    On one thread, as workers do.
    """
    torch.set_num_threads(1)
    data, most = test_set(images, partitions), max(SIZES)
    labels = torch.arange(images) % len(data.prior)
    sizes = torch.randint(1, LONGEST + 1, (images,), generator=rng.generator(0, "sizes"))
    of_rank = torch.repeat_interleave(torch.arange(images), sizes)[: images // len(data.prior) + 1]
    groups = of_rank[torch.arange(images) // len(data.prior)] * len(data.prior) + labels
    alike = torch.arange(images) // (len(data.prior) * most) * len(data.prior) + labels
    aggregator = LogPool(data.shape.log_prior).eval()

    def scored(clusters: torch.Tensor) -> Callable[[], object]:
        draw = rng.generator(0, "drawn")
        drawn = partition(labels, most, partitions, data.prior, draw, clusters, short=True)

        def whole() -> object:
            posterior = posterior_over(aggregator, data.sources, drawn, SIZES)
            return score(posterior, drawn, data.prior, SIZES, images, clusters, None)

        whole()
        return whole

    own, usual = interleaved(scored(groups), scored(alike), 4 * rounds)  # each takes a twentieth of a second
    return summarize(
        "scoring: groups of any size / groups of one size",
        "x",
        ratios(own, usual),
        bound=RAGGED,
        note=f"{images} instances in groups of 1 to {LONGEST}, or of {most}; {partitions} partitions; posteriors of "
        f"the log-pool and all scores: {min(own):.2f} against {min(usual):.2f} s of processor time (best)",
    )
