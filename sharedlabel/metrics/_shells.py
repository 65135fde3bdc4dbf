"""Metrics as `torchmetrics.Metric`: they add up sums, the pure functions say of what.

```python
metrics = torchmetrics.MetricCollection([NAccuracy(), RelativeInformation(num_classes=10)])
for log_posterior, labels in batches:  # [t n c], [t]
    metrics.update(log_posterior, labels)
metrics.compute()  # {"NAccuracy": tensor(0.97), "RelativeInformation": tensor(0.91)}
```

Each tells of the posterior after the last instance alone, a number, be the tuples of one length or of several; with
`n=8` of those after 1 to 8 instances, `[8]`, of tuples of 8.
Split updates and several processes give the same numbers as one call of the pure function on everything.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.plot import _AX_TYPE

from sharedlabel.metrics import _checks
from sharedlabel.metrics.accuracy import correct
from sharedlabel.metrics.brier import squared_distance
from sharedlabel.metrics.diagrams import BINS, bin_sums, calibration_gap, reliability_from_sums
from sharedlabel.metrics.gain import entropy_of
from sharedlabel.metrics.information import (
    floor_posterior,
    label_entropy,
    log2_posterior_of_label,
    share_of_entropy,
)


class _OverTuples(Metric, abc.ABC):
    """What the metrics share: how posteriors of tuples come in, and how results are drawn.

    Args:
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        kwargs: handed to `torchmetrics.Metric`.
    """

    full_state_update = False
    is_differentiable = False
    unit: ClassVar[str]
    plot_lower_bound: float | None = None
    plot_upper_bound: float | None = None
    tuples: Tensor
    mass: Tensor

    def __init__(self, n: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if n is not None:
            _checks.whole("a number of instances", n, 1)
        self.n = n
        self._sum("tuples")
        self._sum("mass")

    def _sum(self, name: str, *shape: int) -> None:
        """Add a sum over tuples to what is kept, in float64."""
        self.add_state(name, torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")

    def update(
        self,
        log_posterior: Float[Tensor, "t n c"],
        labels: Int64[Tensor, "t"],
        weights: Float[Tensor, "t"] | None = None,
    ) -> None:
        """Add tuples.

        Args:
            log_posterior: natural log, after each prefix; tensors, not arrays of numpy. Logits will do where the pure
                function takes them.
            labels: class index of each tuple.
            weights: weight of each tuple, on one scale over all updates; 1 each if None. All of one update may be 0.

        Raises:
            DataError: arguments that do not belong together; nothing is added.
        """
        sizes = {} if self.n is None else {"n": self.n}
        _checks.shape("log-posteriors", log_posterior, "t n c", **sizes, **self._classes())
        _checks.scored(log_posterior, labels, weights)
        mass = torch.ones_like(labels, dtype=torch.float64) if weights is None else weights.double()
        self._add(log_posterior if self.n else log_posterior[:, -1:], labels, mass)
        self.tuples += len(labels)
        self.mass += mass.sum()

    def compute(self) -> Tensor:
        """Return the value over all tuples so far, `[n]`, or a number without `n`.

        Raises:
            DataError: there are none yet, or none that weighs anything.
        """
        _checks.mean(int(self.tuples), float(self.mass))
        values = self._values()
        return values if self.n else values[0]

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: _AX_TYPE | None = None) -> Any:
        """Draw a value, or several of them one after the other.

        Args:
            val: from `compute` or `forward`; what `compute` returns now if None.
            ax: where to draw; a new figure if None.

        Returns:
            The figure, None where `ax` was given, and the axes: as torchmetrics does.
        """
        return self._plot(val, ax)

    def _classes(self) -> dict[str, int]:
        """Return what is known of the number of classes."""
        return {}

    @abc.abstractmethod
    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        """Add to the sums."""

    @abc.abstractmethod
    def _values(self) -> Tensor:
        """Return the value of each prefix length."""


class NAccuracy(_OverTuples):
    """Share of tuples whose most probable label is right, in [0, 1]; ties go to the lowest class index.

    Args:
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        kwargs: handed to `torchmetrics.Metric`.

    >>> metric = NAccuracy(n=2)
    >>> metric.update(torch.tensor([[[0.4, 0.6], [0.9, 0.1]]]).log(), torch.tensor([0]))
    >>> metric.compute()
    tensor([0., 1.], dtype=torch.float64)
    """

    higher_is_better = True
    unit = "share"
    plot_lower_bound, plot_upper_bound = 0.0, 1.0
    right: Tensor

    def __init__(self, n: int | None = None, **kwargs: Any) -> None:
        super().__init__(n, **kwargs)
        self._sum("right", n or 1)

    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        self.right += mass @ correct(log_posterior, labels).double()

    def _values(self) -> Tensor:
        return self.right / self.mass


class NegativeLogLikelihood(_OverTuples):
    """Mean of -log2 p(y), in bits: see `sharedlabel.metrics.negative_log_likelihood`.

    Args:
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        kwargs: handed to `torchmetrics.Metric`.
    """

    higher_is_better = False
    unit = "bits"
    plot_lower_bound: float | None = 0.0
    missing: Tensor

    def __init__(self, n: int | None = None, **kwargs: Any) -> None:
        super().__init__(n, **kwargs)
        self._sum("missing", n or 1)

    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        self.missing -= mass @ log2_posterior_of_label(floor_posterior(log_posterior), labels)

    def _values(self) -> Tensor:
        return self.missing / self.mass


class InformationGain(NegativeLogLikelihood):
    """Information gain in bits, H(Y) less the negative log-likelihood: see `sharedlabel.metrics.information_gain`.

    Args:
        num_classes: number of labels, c.
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        log_prior: `[c]`, natural log of the prior that posteriors start from; the frequencies of all labels seen if
            None.
        kwargs: handed to `torchmetrics.Metric`.
    """

    higher_is_better = True
    plot_lower_bound = None
    counts: Tensor

    def __init__(
        self, num_classes: int, n: int | None = None, log_prior: Float[Tensor, "c"] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(n, **kwargs)
        _checks.whole("a number of classes", num_classes, 2)
        self.num_classes, self._entropy = num_classes, None if log_prior is None else label_entropy(log_prior)
        if log_prior is not None:
            _checks.shape("log-priors", log_prior, "c", c=num_classes)
        self._sum("counts", num_classes)

    def entropy(self) -> float:
        """Return H(Y) in bits: that of the prior, or of the labels seen so far."""
        return entropy_of(self.counts) if self._entropy is None else self._entropy

    def _classes(self) -> dict[str, int]:
        return {"c": self.num_classes}

    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        super()._add(log_posterior, labels, mass)
        self.counts += torch.bincount(labels, mass, minlength=self.num_classes)

    def _values(self) -> Tensor:
        return self.entropy() - super()._values()


class RelativeInformation(InformationGain):
    """Relative information, the information gain as a share of the label entropy, in (-inf, 1].

    1 where the label is known for sure, 0 where no more is known than the prior says.

    Args:
        num_classes: number of labels, c.
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        log_prior: as for `InformationGain`; give one where a batch may hold a single label, whose entropy is 0.
        kwargs: handed to `torchmetrics.Metric`.

    >>> metric = RelativeInformation(num_classes=2)
    >>> metric.update(torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]]).log(), torch.tensor([0, 1]))
    >>> round(metric.compute().item(), 3)  # 1 - log2(1 / .9)
    0.848
    """

    unit = "share"
    plot_upper_bound = 1.0

    def _values(self) -> Tensor:
        return share_of_entropy(super()._values(), self.entropy())


class BrierScore(_OverTuples):
    """Mean squared distance of posterior and label, in [0, 2]: see `sharedlabel.metrics.brier_score`.

    Args:
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        kwargs: handed to `torchmetrics.Metric`.

    >>> metric = BrierScore()
    >>> metric.update(torch.tensor([[[0.5, 0.5]], [[0.0, 1.0]]]).log(), torch.tensor([0, 1]))
    >>> metric.compute()
    tensor(0.2500, dtype=torch.float64)
    """

    higher_is_better = False
    unit = "squared distance"
    plot_lower_bound, plot_upper_bound = 0.0, 2.0
    distance: Tensor

    def __init__(self, n: int | None = None, **kwargs: Any) -> None:
        super().__init__(n, **kwargs)
        self._sum("distance", n or 1)

    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        self.distance += mass @ squared_distance(log_posterior, labels)

    def _values(self) -> Tensor:
        return self.distance / self.mass


class CalibrationError(_OverTuples):
    """Expected calibration error of the top label, in [0, 1]: the mean gap between confidence and accuracy.

    Args:
        n: prefix lengths to tell of, 1 to n; None for the last alone, the mean over tuples of whatever lengths.
        bins: number of bins of equal width.
        kwargs: handed to `torchmetrics.Metric`.
    """

    higher_is_better = False
    unit = "share"
    plot_lower_bound, plot_upper_bound = 0.0, 1.0
    sums: Tensor

    def __init__(self, n: int | None = None, bins: int = BINS, **kwargs: Any) -> None:
        super().__init__(n, **kwargs)
        _checks.whole("a number of bins", bins, 1)
        self.bins = bins
        self._sum("sums", 3, n or 1, bins)

    def _add(self, log_posterior: Tensor, labels: Tensor, mass: Tensor) -> None:
        self.sums += bin_sums(log_posterior, labels, mass, self.bins)

    def _values(self) -> Tensor:
        return calibration_gap(reliability_from_sums(self.sums))
