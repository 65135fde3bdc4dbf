"""What the LightningModules log of tuples: n-accuracy and relative information, over all batches of an epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from sharedlabel.metrics.accuracy import correct
from sharedlabel.metrics.information import FLOOR, floor_posterior, label_entropy, log2_posterior_of_label


def logged_sizes(n: int) -> list[int]:
    """Return the numbers of instances that are logged: 1, 2, 4, ... and n.

    >>> logged_sizes(12)
    [1, 2, 4, 8, 12]
    """
    return sorted({2**power for power in range(n.bit_length())} | {n})


class TupleScores(Metric):
    """n-accuracy and relative information after some numbers of instances; batches and devices are added up.

    The prior over labels is that of the tuples themselves, by their weights, so a loader that weighs tuples by a prior
    (`TupleLoader`) gives the RI under that prior. RI is NaN where all tuples have one label: nothing is to be known.

    Args:
        sizes: numbers of instances after which there are posteriors, in rising order.
        classes: number of classes.
    """

    full_state_update = False
    is_differentiable = False
    right: Tensor
    missing: Tensor
    mass: Tensor

    def __init__(self, sizes: Sequence[int], classes: int) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        for name, count in (("right", len(self.sizes)), ("missing", len(self.sizes)), ("mass", classes)):
            self.add_state(name, torch.zeros(count, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, log_posterior: Float[Tensor, "t k c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"]
    ) -> None:
        """Add tuples.

        Args:
            log_posterior: natural log, after each of the sizes.
            labels: class index of each tuple.
            weights: weight of each tuple, on one scale over all updates.
        """
        weight = weights.double()
        self.right += weight @ correct(log_posterior, labels).double()
        self.missing -= weight @ log2_posterior_of_label(floor_posterior(log_posterior, FLOOR), labels)
        self.mass.index_add_(0, labels, weight)

    def compute(self) -> tuple[Float[Tensor, "k"], Float[Tensor, "k"]]:
        """Return the n-accuracy and the relative information after each of the sizes."""
        total = self.mass.sum()
        entropy = label_entropy((self.mass / total).log()) or math.nan
        return self.right / total, 1 - self.missing / total / entropy

    def named(self) -> dict[str, Tensor]:
        """Return what is logged: `n_accuracy@k` and `ri@k`."""
        accuracy, information = self.compute()
        shown = logged_sizes(self.sizes[-1])
        return {
            f"{name}@{size}": value.float()
            for name, values in (("n_accuracy", accuracy), ("ri", information))
            for size, value in zip(self.sizes, values.reshape(-1), strict=True)  # torchmetrics squeezes a single one
            if size in shown
        }
