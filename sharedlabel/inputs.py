"""The data that every stage reads: a data set, its splits and the prior of its tuples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import SplitConfig, digest
from sharedlabel.data import splits, tuples
from sharedlabel.evaluation import Scores, score
from sharedlabel.types import Dataset, Role, Tuples

FEATURE_ROLES: tuple[Role, ...] = ("aggregator", "validation", "test")
SCORED_ROLES: tuple[Literal["validation", "test"], ...] = ("validation", "test")


@dataclass(frozen=True)
class Data:
    """A data set, its splits and the key that stands for both.

    Attributes:
        dataset: all of it.
        splits: sorted instance indices of each role.
        prior: class prior of tuples, `[c]`.
        key: stands for all of this.
        part: what people call the part that cross-fitting uses; empty for the splits of the configuration.
        folds: sorted instance indices of each fold of the role `aggregator`; empty without cross-fitting.
    """

    dataset: Dataset
    splits: Mapping[Role, Tensor]
    prior: Tensor
    key: str
    part: str = ""
    folds: tuple[Tensor, ...] = ()

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


def data_key(dataset: Dataset, split: Any, prior: str, **part: Any) -> str:
    """Return the key that stands for a data set, its splits, the prior of its tuples and, if given, a part of it."""
    return digest({"fingerprint": dataset.fingerprint, "split": split, "prior": prior, **part})


class Crossfit(NamedTuple):
    """The data of cross-fitting; validation and test are those of the configuration.

    Attributes:
        whole: what the deployed backbone and the aggregators learn on: both roles hold all folds.
        folds: what the other backbones learn on: the role `aggregator` is a fold, `backbone` is all the others.
    """

    whole: Data
    folds: tuple[Data, ...]


def crossfitted(data: Data, split: SplitConfig, prior: str, count: int) -> Crossfit:
    """Cut the splits `backbone` and `aggregator` together into folds.

    Args:
        data: with the splits of the configuration.
        split: how they were made.
        prior: class prior of tuples, as configured.
        count: number of folds.

    Raises:
        DataError: a class is missing from a fold.
    """
    every = torch.cat([data.splits["backbone"], data.splits["aggregator"]]).sort().values
    cut = splits.folds(data.dataset, every, count, split)

    def part(backbone: Tensor, aggregator: Tensor, name: str, **stated: Any) -> Data:
        roles = {**data.splits, "backbone": backbone, "aggregator": aggregator}
        key = data_key(data.dataset, split, prior, **stated)
        return dataclasses.replace(data, splits=roles, key=key, part=name)

    whole = dataclasses.replace(part(every, every, "all folds", part="all folds"), folds=cut)
    rest = [every[~torch.isin(every, fold)] for fold in cut]
    return Crossfit(
        whole,
        tuple(
            part(others, fold, f"fold {number} of {count}", fold=number, folds=count)
            for number, (others, fold) in enumerate(zip(rest, cut, strict=True), start=1)
        ),
    )
