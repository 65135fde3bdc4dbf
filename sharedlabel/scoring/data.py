"""The data that every stage reads: a data set, its splits and the prior of its tuples."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import digest
from sharedlabel.config.names import IID
from sharedlabel.config.sections import Cut, SplitConfig
from sharedlabel.data import splits, tuples
from sharedlabel.scoring.scores import Scores, score
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
        key: stands for the data set and its splits. A stage that reads the prior names it in its configuration, and one
            that reads the folds has the features of each among its inputs.
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
        """Group ids of a split under a protocol whose tuples stay within a group, None under iid."""
        if protocol == IID or self.dataset.groups is None:
            return None
        return self.dataset.groups[self.splits[role]]

    def form(self, role: Role, protocol: str, cut: Cut = Cut()) -> tuples.Form:  # noqa: B008 (frozen)
        """Return what forms tuples of a split under a protocol."""
        positions = self.dataset.positions
        return tuples.form(protocol, cut, None if positions is None else positions[self.splits[role]])

    def tuples(
        self,
        role: Role,
        protocol: str,
        n: int,
        partitions: int,
        seed: int,
        cut: Cut = Cut(),  # noqa: B008 (frozen)
    ) -> Tuples:
        """Evaluation tuples of a split: the same for every method and training seed."""
        generator = rng.generator(seed, "evaluation", role, protocol)
        form, groups, names = self.form(role, protocol, cut), self.groups(role, protocol), self.dataset.class_names
        return form(self.labels(role), n, partitions, self.prior, generator, groups, names)


def clusters(data: Data, role: Role, protocol: str, drawn: Tuples) -> Tensor | None:
    """Return the group of each image of a split under a protocol of groups, None under iid.

    Images whose group is too small for a tuple are counted with one that has some, so that there are as many groups as
    scores come from.
    """
    groups = data.groups(role, protocol)
    if groups is None:
        return None
    used = groups[drawn.indices[:, :, 0]].unique()
    return torch.where(torch.isin(groups, used), groups, used[0])


# Not a method of `Data`: every stage reads data, and what scores are made of is no part of what trains networks.
def score_tuples(
    data: Data,
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
    tuples.check(drawn, data.labels(role))
    groups = clusters(data, role, protocol, drawn)
    return score(posterior, drawn, data.prior, n, len(data.splits[role]), groups, temperature)


def data_key(dataset: Dataset, roles: Mapping[Role, Tensor], code: Mapping[str, str]) -> str:
    """Return the key that stands for a data set and what is read of it: its content, not how it came to be.

    Args:
        dataset: all of it.
        roles: sorted instance indices of each role.
        code: digests of the data set's plugin, which need not hash all that it reads, by module.
    """
    split = {
        role: hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest() for role, indices in roles.items()
    }
    return digest({"fingerprint": dataset.fingerprint, "split": split, "code": dict(code)})


class Crossfit(NamedTuple):
    """The data of cross-fitting; validation and test are those of the configuration.

    Attributes:
        whole: what the deployed backbone and the aggregators learn on: both roles hold all folds.
        folds: what the other backbones learn on: the role `aggregator` is a fold, `backbone` is all the others.
    """

    whole: Data
    folds: tuple[Data, ...]


def crossfitted(data: Data, split: SplitConfig, count: int, code: Mapping[str, str]) -> Crossfit:
    """Cut the splits `backbone` and `aggregator` together into folds.

    Args:
        data: with the splits of the configuration.
        split: how they were made.
        count: number of folds.
        code: as for `data_key`.

    Raises:
        DataError: a class is missing from a fold.
    """
    every = torch.cat([data.splits["backbone"], data.splits["aggregator"]]).sort().values
    cut = tuple(splits.folds(data.dataset, every, count, split))

    def part(backbone: Tensor, aggregator: Tensor, name: str, folds: tuple[Tensor, ...] = ()) -> Data:
        roles: dict[Role, Tensor] = {**data.splits, "backbone": backbone, "aggregator": aggregator}
        return dataclasses.replace(data, splits=roles, key=data_key(data.dataset, roles, code), part=name, folds=folds)

    rest = [every[~torch.isin(every, fold)] for fold in cut]
    return Crossfit(
        part(every, every, "all folds", cut),
        tuple(
            part(others, fold, f"fold {number} of {count}")
            for number, (others, fold) in enumerate(zip(rest, cut, strict=True), start=1)
        ),
    )
