"""The data that every stage reads: a data set, its splits and the prior of its tuples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import digest
from sharedlabel.data import tuples
from sharedlabel.evaluation import Scores, score
from sharedlabel.types import Dataset, Role, Tuples

FEATURE_ROLES: tuple[Role, ...] = ("aggregator", "validation", "test")
SCORED_ROLES: tuple[Literal["validation", "test"], ...] = ("validation", "test")


@dataclass(frozen=True)
class Data:
    """A data set, its splits and the key that stands for both."""

    dataset: Dataset
    splits: Mapping[Role, Tensor]
    prior: Tensor
    key: str

    def labels(self, role: Role) -> Tensor:
        """Labels of a split, `[m]`."""
        return self.dataset.labels[self.splits[role]]

    def groups(self, role: Role, protocol: str) -> Tensor | None:
        """Group ids of a split under the grouped protocol, None under iid."""
        if protocol == "iid" or self.dataset.groups is None:
            return None
        return self.dataset.groups[self.splits[role]]

    def tuples(self, role: Role, protocol: str, n: int, partitions: int, seed: int) -> Tuples:
        """Evaluation tuples of a split: the same for every method and training seed."""
        generator = rng.generator(seed, "evaluation", role, protocol)
        groups = self.groups(role, protocol)
        return tuples.partition(
            self.labels(role), n, partitions, self.prior, generator, groups, self.dataset.class_names
        )

    def score(
        self,
        posterior: Tensor,
        drawn: Tuples,
        role: Role,
        protocol: str,
        n: tuple[int, ...],
        temperature: Tensor | None,
    ) -> Scores:
        """Score log-posteriors `[p*t k c]` of a split's tuples, with intervals over its images or groups.

        Raises:
            DataError: tuples that mix labels or hold an instance twice.
        """
        tuples.check(drawn, self.labels(role))
        groups = self.groups(role, protocol)
        return score(posterior, drawn, self.prior, n, len(self.splits[role]), groups, temperature)


def data_key(dataset: Dataset, split: Any, prior: str) -> str:
    """Return the key that stands for a data set, its splits and the prior of its tuples."""
    return digest({"fingerprint": dataset.fingerprint, "split": split, "prior": prior})
