"""The residual LSTM for every n: one pass over the largest, against one pass per n."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks._measure import Result, interleaved, ratios, summarize
from benchmarks._synthetic import N, TestSet, test_set
from sharedlabel import rng
from sharedlabel.aggregators.residual_lstm import Config, ResidualLstm
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.types import Tuples

BOUND = 8.0
# Nats; matrix products of other sizes round differently.
TOLERANCE = 1e-4


def run(quick: bool) -> list[Result]:
    """Time the posteriors of the same tuples after every n, both ways."""
    images, partitions, rounds = (500, 2, 1) if quick else (10_000, 10, 7)
    data = test_set(images, partitions)
    aggregator = build(data)
    drawn = data.drawn

    def one_pass() -> Tensor:
        return posterior_over(aggregator, data.sources, drawn, range(1, N + 1))

    def pass_per_n() -> Tensor:
        return torch.cat(
            [posterior_over(aggregator, data.sources, shortened(drawn, n), [n]) for n in range(1, N + 1)], 1
        )

    slow, fast = interleaved(pass_per_n, one_pass, rounds)
    difference = float((pass_per_n() - one_pass()).abs().max())
    tuples = drawn.labels.numel()
    return [
        summarize(
            "residual LSTM: all n in one pass, faster than one pass per n",
            "x",
            ratios(slow, fast),
            bound=BOUND,
            better="at least",
            note=f"{tuples} tuples, n = 1 to {N}: {min(fast):.3f} s against {min(slow):.3f} s (best of {rounds})",
        ),
        summarize(
            "residual LSTM: largest difference of the two",
            "nats",
            [difference],
            bound=TOLERANCE,
            note="log-posterior of any label, any n",
        ),
    ]


def build(data: TestSet) -> ResidualLstm:
    """Return a residual LSTM that corrects the pool: untrained, its read-out would be zero and hide differences."""
    with rng.seeded(0, "benchmarks", "residual_lstm"):
        aggregator = ResidualLstm(Config(), data.shape)
        nn.init.xavier_uniform_(aggregator.read_out.weight)
    return aggregator.eval()


def shortened(drawn: Tuples, n: int) -> Tuples:
    """Return the prefixes of length `n`."""
    return Tuples(drawn.indices[..., :n].contiguous(), drawn.labels, drawn.weights)
