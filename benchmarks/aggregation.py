"""Aggregating and scoring every n in one pass, against a Python loop over tuples."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks._measure import Result, interleaved, ratios, summarize
from benchmarks._synthetic import CLASSES, N, TestSet, test_set
from sharedlabel.aggregators.log_pool import LogPool
from sharedlabel.metrics.accuracy import n_accuracy
from sharedlabel.metrics.information import (
    FLOOR,
    floor_posterior,
    label_entropy,
    log2_posterior_of_label,
    posterior_gain,
)
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.types import Tuples

BOUND = 50.0
# Float32 sums in another order; a wrong formula is off by far more.
TOLERANCE = 1e-5
PREFIXES = range(1, N + 1)


def run(quick: bool) -> list[Result]:
    """Time the log-pool's posterior, n-accuracy and information gain for all n on all partitions.

    The loop pools every prefix of every tuple by itself, as a function for one tuple would. It runs over the tuples of
    one partition and its time is multiplied by the number of partitions.
    """
    images, partitions, rounds = (500, 2, 1) if quick else (10_000, 10, 7)
    data = test_set(images, partitions)
    aggregator = LogPool(data.shape.log_prior).eval()
    first = Tuples(data.drawn.indices[:1], data.drawn.labels[:1], data.drawn.weights[:1])

    def ours(drawn: Tuples) -> Tensor:
        posterior = posterior_over(aggregator, data.sources, drawn, PREFIXES)
        labels, weights = drawn.labels.flatten(), drawn.weights.flatten()
        bits = log2_posterior_of_label(floor_posterior(posterior), labels)
        gain = posterior_gain(bits, weights, label_entropy(data.prior.log()))
        return torch.stack([n_accuracy(posterior, labels, weights), gain])

    def running() -> Tensor:
        return loop(data, first, running_sum=True)

    slow, fast = interleaved(lambda: loop(data, first), lambda: ours(data.drawn), rounds)
    tight, beside = interleaved(running, lambda: ours(data.drawn), rounds)
    difference = max(float((ours(first) - other).abs().max()) for other in (loop(data, first), running()))
    tuples = first.labels.numel()
    note = (
        f"{partitions} partitions of {images} images, n = 1 to {N}: {min(fast):.3f} s; the loop ran over one partition "
        f"({tuples} of {tuples * partitions} tuples), scaled to {partitions * min(slow):.2f} s (best of {rounds})"
    )
    return [
        summarize(
            "aggregation: log-pool and scores, faster than a loop over tuples",
            "x",
            ratios(slow, fast, partitions),
            bound=BOUND,
            better="at least",
            note=note,
        ),
        summarize(
            "aggregation: the same against a loop that keeps a running sum",
            "x",
            ratios(tight, beside, partitions),
            note=f"one normalisation per tuple; {partitions * min(tight):.2f} s scaled alike",
        ),
        summarize(
            "aggregation: largest difference from either loop",
            "",
            [difference],
            bound=TOLERANCE,
            note="n-accuracy (share) and information gain (bits), any n, same tuples",
        ),
    ]


@torch.inference_mode()
def loop(data: TestSet, drawn: Tuples, running_sum: bool = False) -> Tensor:
    """Return n-accuracy and information gain `[2 n]` of one partition, tuple by tuple and prefix by prefix.

    Args:
        data: features and prior.
        drawn: tuples of one partition.
        running_sum: carry the pool from prefix to prefix instead of computing it anew for each.
    """
    log_prior = data.prior.log().float()
    right, bits = [0.0] * N, [0.0] * N
    tuples = zip(drawn.indices[0], drawn.labels[0].tolist(), drawn.weights[0].tolist(), strict=True)
    for index, label, weight in tuples:
        for k, pooled in enumerate(_running(data, log_prior, index) if running_sum else _anew(data, log_prior, index)):
            posterior = pooled.double().softmax(0)
            right[k] += weight * (int(posterior.argmax()) == label)
            bits[k] += weight * math.log2((1 - FLOOR) * float(posterior[label]) + FLOOR / CLASSES)
    entropy = label_entropy(data.prior.log())
    return torch.tensor([right, [entropy + value for value in bits]], dtype=torch.float64)


def _anew(data: TestSet, log_prior: Tensor, index: Tensor) -> Iterator[Tensor]:
    """Pool every prefix of a tuple by itself."""
    for n in range(1, N + 1):
        yield log_prior + (data.logits[index[:n]].log_softmax(-1) - log_prior).sum(0)


def _running(data: TestSet, log_prior: Tensor, index: Tensor) -> Iterator[Tensor]:
    """Pool the prefixes of a tuple one after the other."""
    total = log_prior
    for evidence in data.logits[index].log_softmax(-1) - log_prior:
        total = total + evidence
        yield total
