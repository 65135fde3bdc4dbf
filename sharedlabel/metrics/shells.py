"""Thin `torchmetrics.Metric` shells: they add up sums, the pure functions say of what.

Split updates and several processes give the same numbers as one call of the pure function on everything.
"""

from __future__ import annotations

import abc
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric

from sharedlabel.metrics import _checks
from sharedlabel.metrics.calibration import BINS, bin_sums, calibration_gap, reliability_from_sums
from sharedlabel.metrics.information import FLOOR, floor_posterior, log2_posterior_of_label
from sharedlabel.metrics.n_accuracy import correct


def _mass(labels: Int64[Tensor, "t"], weights: Float[Tensor, "t"] | None) -> Float[Tensor, "t"]:
    return torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()


def _check(log_posterior: Tensor, labels: Tensor, weights: Tensor | None, prefixes: int) -> None:
    """Refuse a batch before any sum has changed."""
    _checks.shape("log-posteriors", log_posterior, "t n c", n=prefixes)
    _checks.scored(log_posterior, labels, weights)


class _TupleMean(Metric):
    """A weighted mean over tuples for every prefix length.

    Args:
        prefixes: number of prefix lengths, n.
        kwargs: handed to `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    unit: ClassVar[str]
    range: ClassVar[tuple[float, float]]
    total: Tensor
    mass: Tensor

    def __init__(self, prefixes: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.zeros(prefixes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("mass", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    @abc.abstractmethod
    def score(self, log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t n"]:
        """Return what is averaged."""

    def update(
        self,
        log_posterior: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | None = None,
    ) -> None:
        """Add tuples.

        Args:
            log_posterior: natural log, after each prefix.
            labels: class index of each tuple.
            weights: weight of each tuple, on one scale over all updates; 1 each if None.
        """
        _check(log_posterior, labels, weights, len(self.total))
        mass = _mass(labels, weights)
        self.total += mass @ self.score(log_posterior, labels)
        self.mass += mass.sum()

    def compute(self) -> Float[Tensor, "n"]:
        """Return the mean over all tuples so far."""
        return self.total / self.mass


class NAccuracy(_TupleMean):
    """Share of tuples whose most probable label is right."""

    higher_is_better = True
    unit = "share"
    range = (0.0, 1.0)

    def score(self, log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t n"]:
        """Return 1 where the decision is right."""
        return correct(log_posterior, labels).double()


class NegativeLogLikelihood(_TupleMean):
    """Mean of -log2 of the label's floored posterior."""

    higher_is_better = False
    unit = "bits"
    range = (0.0, float("inf"))

    def score(self, log_posterior: Float[Tensor, "t n c"], labels: Int64[Tensor, "t"]) -> Float[Tensor, "t n"]:
        """Return the bits still missing."""
        return -log2_posterior_of_label(floor_posterior(log_posterior, FLOOR), labels)


class InformationGain(NegativeLogLikelihood):
    """Posterior estimator of the information gain: H(Y) less the negative log-likelihood.

    Args:
        prefixes: number of prefix lengths, n.
        entropy: H(Y) in bits.
        kwargs: handed to `torchmetrics.Metric`.
    """

    higher_is_better = True
    range = (float("-inf"), float("inf"))

    def __init__(self, prefixes: int, entropy: float, **kwargs: Any) -> None:
        super().__init__(prefixes, **kwargs)
        _checks.number("a label entropy in bits", entropy, 0)
        self.entropy = entropy

    def compute(self) -> Float[Tensor, "n"]:
        """Return bits."""
        return self.entropy - super().compute()


class CalibrationError(Metric):
    """Expected calibration error of the top label.

    Args:
        prefixes: number of prefix lengths, n.
        bins: number of bins of equal width.
        kwargs: handed to `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    higher_is_better = False
    unit: ClassVar[str] = "share"
    range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    sums: Tensor

    def __init__(self, prefixes: int, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bins = bins
        self.add_state("sums", torch.zeros(3, prefixes, bins, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        log_posterior: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | None = None,
    ) -> None:
        """Add tuples.

        Args:
            log_posterior: normalised, natural log, after each prefix.
            labels: class index of each tuple.
            weights: weight of each tuple, on one scale over all updates; 1 each if None.
        """
        _check(log_posterior, labels, weights, self.sums.shape[1])
        self.sums += bin_sums(log_posterior, labels, _mass(labels, weights), self.bins)

    def compute(self) -> Float[Tensor, "n"]:
        """Return the mean gap between confidence and accuracy."""
        return calibration_gap(reliability_from_sums(self.sums))
