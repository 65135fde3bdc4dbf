"""What the metrics of rows are made of: the posteriors of tuples, before and after calibration.

A metric that has a column in the table `rows` is a file of this folder with a function `columns(scored)`, which returns
a value per prefix length for each of its columns; `records/rows.py` declares and explains these.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sharedlabel.types import Tuples


@dataclass(frozen=True)
class Scored:
    """Log-posteriors of the tuples of all partitions, natural log, at every prefix length.

    Attributes:
        posterior: as the aggregator gave it.
        raw: the same, mixed with a little of the uniform distribution (`floor_posterior`).
        calibrated: after one temperature per prefix length, mixed likewise.
        drawn: the tuples.
        prior: of the labels.
        entropy: of the prior, bits.
    """

    posterior: Float[Tensor, "pt k c"]
    raw: Float[Tensor, "pt k c"]
    calibrated: Float[Tensor, "pt k c"]
    drawn: Tuples
    prior: Float[Tensor, "c"]
    entropy: float

    @property
    def versions(self) -> Mapping[str, Float[Tensor, "pt k c"]]:
        """Posteriors by how the names of their columns end: nothing after calibration, `_raw` before it."""
        return {"": self.calibrated, "_raw": self.raw}

    @property
    def labels(self) -> Int64[Tensor, "pt"]:
        """Label of each tuple of all partitions."""
        return self.drawn.labels.flatten()

    @property
    def weights(self) -> Float64[Tensor, "pt"]:
        """Weight of each tuple of all partitions; all together 1."""
        return self.drawn.weights.flatten() / len(self.drawn.weights)
