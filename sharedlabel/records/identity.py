"""What records are about: the fields that name data, network and method, written down once.

A record lists what it is about as its last base class, so that these columns come first in tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from sharedlabel.config.names import DENSE, Protocol

Split: TypeAlias = Literal["validation", "test"]
Metric: TypeAlias = Literal["n_accuracy", "ri"]
# The fields that tell the cells of a grid apart.
AXES = ("backbone", "pruner", "ratio", "aggregator", "training", "protocol", "seed")


@dataclass(frozen=True, kw_only=True)
class OfBackbone:
    """A record about a backbone on a data set.

    Attributes:
        data: data set name.
        backbone: label of the backbone.
    """

    data: str
    backbone: str


@dataclass(frozen=True, kw_only=True)
class OfPruned(OfBackbone):
    """A record about a backbone at a compression ratio.

    Attributes:
        pruner: label of the pruner; `none` for the dense network.
        ratio: requested compression ratio, all parameters.
    """

    pruner: str
    ratio: float


@dataclass(frozen=True, kw_only=True)
class OfSetting(OfBackbone):
    """A record about a backbone, a kind of training and a protocol.

    Attributes:
        training: `frozen` features, `crossfit`, or the label of a recipe that trains backbone and aggregator together.
        protocol: `iid` or `grouped`.
    """

    training: str
    protocol: Protocol


@dataclass(frozen=True, kw_only=True)
class OfMethod(OfSetting, OfPruned):
    """A record about a method: an aggregator on a pruned backbone.

    Attributes:
        aggregator: label of the aggregator; `exact` for the exact posterior of synthetic data.
    """

    aggregator: str


@dataclass(frozen=True, kw_only=True)
class OfCell(OfMethod):
    """A record about one cell of a grid: a method with its training seed.

    Attributes:
        cell: sha256 of everything the numbers depend on, 16 hex digits.
        seed: training seed.
    """

    cell: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class OnSplit:
    """A record about tuples of one size on one split.

    Attributes:
        split: `validation` (choices are made here) or `test` (reported).
        n: instances per tuple.
    """

    split: Split
    n: int


class Identity(NamedTuple):
    """Everything that tells the methods of one data set apart."""

    backbone: str
    pruner: str
    ratio: float
    aggregator: str
    training: str
    protocol: Protocol

    @classmethod
    def of(cls, named: Any) -> Identity:
        """Take the identity of a row, a summary, a cell or whatever else has these attributes."""
        return cls(*(getattr(named, name) for name in cls._fields))

    @property
    def dense(self) -> Identity:
        """The same method on the dense network."""
        return self._replace(pruner=DENSE, ratio=1.0)
