"""What the LightningModules log of tuples: n-accuracy and relative information, over all batches of an epoch."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from sharedlabel.metrics.information import FLOOR, floor_posterior, label_entropy, log2_posterior_of_label
from sharedlabel.metrics.n_accuracy import correct


def logged_sizes(n: int) -> list[int]:
    """Return the numbers of instances that are logged: 1, 2, 4, ... and n.

    >>> logged_sizes(12)
    [1, 2, 4, 8, 12]
    """
    return sorted({2**power for power in range(n.bit_length())} | {n})


class TupleScores(Metric):
    """n-accuracy and relative information after every prefix; batches and devices are added up.

    The prior over labels is that of the tuples themselves, by their weights, so a loader that weighs tuples by a prior
    (`TupleLoader`) gives the RI under that prior. RI is NaN where all tuples have one label: nothing is to be known.

    Args:
        prefixes: instances per tuple, n.
        classes: number of classes.
    """

    full_state_update = False
    is_differentiable = False
    right: Tensor
    missing: Tensor
    mass: Tensor

    def __init__(self, prefixes: int, classes: int) -> None:
        super().__init__()
        for name, size in (("right", prefixes), ("missing", prefixes), ("mass", classes)):
            self.add_state(name, torch.zeros(size, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self, log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"]
    ) -> None:
        """Add tuples.

        Args:
            log_posterior: natural log, after each prefix.
            labels: class index of each tuple.
            weights: weight of each tuple, on one scale over all updates.
        """
        weight = weights.double()
        self.right += weight @ correct(log_posterior, labels).double()
        self.missing -= weight @ log2_posterior_of_label(floor_posterior(log_posterior, FLOOR), labels)
        self.mass.index_add_(0, labels, weight)

    def compute(self) -> tuple[Float[Tensor, "n"], Float[Tensor, "n"]]:
        """Return the n-accuracy and the relative information after every prefix."""
        total = self.mass.sum()
        entropy = label_entropy((self.mass / total).log()) or math.nan
        return self.right / total, 1 - self.missing / total / entropy

    def named(self) -> dict[str, Tensor]:
        """Return what is logged: `n_accuracy@k` and `ri@k`."""
        accuracy, information = self.compute()
        sizes = logged_sizes(len(self.right))
        return {
            f"{name}@{size}": values[size - 1].float()
            for name, values in (("n_accuracy", accuracy), ("ri", information))
            for size in sizes
        }
