"""The stored scores of finished cells, put together over training seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharedlabel.config.names import Protocol
from sharedlabel.config.sections import EvaluationConfig
from sharedlabel.data import tuples
from sharedlabel.metrics.information import label_entropy
from sharedlabel.metrics.uncertainty import independent
from sharedlabel.records import Identity, Row
from sharedlabel.scoring.data import Data, clusters
from sharedlabel.types import Role, Tuples


@dataclass(frozen=True)
class ScoredCell:
    """A finished cell: its rows, and its scores per tuple."""

    rows: tuple[Row, ...]
    scores: Mapping[str, Tensor]

    @property
    def identity(self) -> Identity:
        """Everything that names the cell except the seed: its method."""
        return Identity.of(self.rows[0])


def drawn_again(data: Data, role: Role, protocol: Protocol, evaluation: EvaluationConfig) -> Tuples:
    """Draw the tuples again that the evaluation scored."""
    cut = tuples.asked(evaluation, protocol)
    return data.tuples(role, protocol, max(evaluation.n), evaluation.partitions, evaluation.seed, cut)


@dataclass(frozen=True)
class Split:
    """What all methods of a split and protocol share: the tuples and the images that they are drawn from.

    Attributes:
        drawn: the tuples, the same for every method and seed.
        instances: number of images.
        groups: group of each image under a protocol of groups.
        entropy: H(Y) in bits.
    """

    drawn: Tuples
    instances: int
    groups: Tensor | None
    entropy: float

    def independent(self, sizes: Sequence[int | float]) -> Tensor:
        """Count the tuples of each size that share nothing."""
        return independent(sizes, self.instances, self.groups, self.drawn)

    @classmethod
    def of(cls, data: Data, role: Role, protocol: Protocol, evaluation: EvaluationConfig) -> Split:
        """Return a split with the tuples that the evaluation scored."""
        drawn = drawn_again(data, role, protocol, evaluation)
        return cls(
            drawn, len(data.splits[role]), clusters(data, role, protocol, drawn), label_entropy(data.prior.log())
        )


@dataclass(frozen=True)
class SeedScores:
    """One method over its seeds on one split.

    Attributes:
        role: `validation` or `test`.
        rows: per seed, then per n.
        stored: the scores of every seed, as they are stored: memory-mapped and in few bits.
    """

    role: Role
    rows: tuple[tuple[Row, ...], ...]
    stored: tuple[Mapping[str, Tensor], ...]

    @property
    def n(self) -> list[int]:
        """Instances per tuple."""
        return [row.n for row in self.rows[0]]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Training seeds."""
        return tuple(rows[0].seed for rows in self.rows)

    def scores(self, seeds: Sequence[int] | None = None) -> Tensor:
        """Read `[s p t 2k]` in float64, right or wrong at every n and then bits at every n, of some or all seeds."""
        chosen = self.seeds if seeds is None else seeds
        by_seed = dict(zip(self.seeds, self.stored, strict=True))
        return torch.stack([self._one(by_seed[seed]) for seed in chosen])

    def _one(self, stored: Mapping[str, Tensor]) -> Tensor:
        parts = [stored[f"{self.role}.{name}"].double() for name in ("correct", "information")]
        return torch.cat(parts, dim=2)


def over_seeds(cells: Sequence[ScoredCell], role: Role) -> dict[Identity, SeedScores]:
    """Group finished cells that differ in the seed alone."""
    grouped: dict[Identity, list[ScoredCell]] = {}
    for cell in cells:
        grouped.setdefault(cell.identity, []).append(cell)
    return {
        identity: SeedScores(
            role,
            tuple(tuple(row for row in cell.rows if row.split == role) for cell in own),
            tuple(cell.scores for cell in own),
        )
        for identity, own in grouped.items()
    }


def common_seeds(methods: Sequence[SeedScores]) -> tuple[int, ...]:
    """Return the training seeds that all methods have, in the order of the first."""
    return tuple(seed for seed in methods[0].seeds if all(seed in other.seeds for other in methods))
