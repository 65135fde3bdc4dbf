"""What a fitted aggregator says of the evaluation tuples, which `evaluate` and `adaptive` of a method both score.

The latest answers are kept in the process: the two calls of a method mostly follow each other, and what one has
computed the other need not. Each computes all by itself where they do not.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sharedlabel.aggregators._base import Aggregator, pick
from sharedlabel.aggregators._shared import SharingAggregator
from sharedlabel.config.sections import Cut
from sharedlabel.metrics.calibration import temperatures
from sharedlabel.scoring.data import Data
from sharedlabel.scoring.scores import posterior_over
from sharedlabel.stages import _read
from sharedlabel.store import Artifact
from sharedlabel.types import Role, Tuples

_MOST = 2**24  # values that are kept of a split


@dataclass
class _Latest:
    """Values by name, of one key: those of another one take their place."""

    key: Hashable = None
    values: dict[str, Any] = field(default_factory=dict)

    def get(self, key: Hashable, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """Return a value, computing it where it is not kept."""
        if key != self.key:
            self.key, self.values = key, {}
        value: Tensor = self.values[name] if name in self.values else compute()
        if value.numel() <= _MOST:
            self.values[name] = value
        return value


_LATEST = _Latest()


@dataclass(frozen=True)
class Answers:
    """The answers of an aggregator after every instance of the tuples of a sample.

    Args:
        aggregator: fitted.
        data: whose tuples.
        inputs: `features`, `calibrate` and `aggregate`.
        sample: all that the tuples depend on besides the data.
        device: that the aggregator computes on.
    """

    aggregator: Aggregator
    data: Data
    inputs: Mapping[str, Artifact]
    sample: tuple[int, str, int, int, Cut]
    device: torch.device

    @property
    def come_along(self) -> bool:
        """Whether the posteriors after fewer instances cost nothing extra."""
        return isinstance(self.aggregator, SharingAggregator)

    def posterior(self, role: Role, drawn: Tuples) -> Tensor:
        """Return the log-posterior `[t n c]` of a split's tuples after every instance."""
        return self._kept(role, lambda: self._over(role, drawn, range(1, drawn.indices.shape[2] + 1)))

    def temperatures(self, drawn: Tuples) -> Tensor:
        """Return the temperature after every instance, fitted on validation."""
        sizes, groups = range(1, drawn.indices.shape[2] + 1), self.data.groups("validation", self.sample[1])
        return self._kept(
            "temperatures", lambda: temperatures(self.posterior("validation", drawn), drawn, sizes, groups)
        )

    def after(self, role: Role, drawn: Tuples, n: Sequence[int]) -> Tensor:
        """Return the log-posterior `[t k c]` of a split's tuples after some numbers of instances."""
        if self.come_along:
            return pick(self.posterior(role, drawn), n)
        return self._over(role, drawn, n)

    def _over(self, role: Role, drawn: Tuples, n: Sequence[int]) -> Tensor:
        sources = _read.calibrated(self.inputs["features"], self.inputs["calibrate"], role)
        return posterior_over(self.aggregator, sources, drawn, n, self.device)

    def _kept(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        key = (self.data.key, *(self.inputs[one].key for one in ("features", "calibrate", "aggregate")), *self.sample)
        return _LATEST.get(key, name, compute)
