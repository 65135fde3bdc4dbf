"""Tuples for any Trainer: a LightningDataModule that forms them from images or features, labels and groups."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config.names import IID, Protocol
from sharedlabel.config.sections import Cut, SplitConfig
from sharedlabel.data import splits, tuples
from sharedlabel.errors import DataError, nearest
from sharedlabel.metrics import _checks
from sharedlabel.scoring.data import Data
from sharedlabel.training.loaders import Chosen, Lookup, TupleLoader, looked_up, weighed
from sharedlabel.types import ROLES, Role, Tuples

Split: TypeAlias = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Instances:
    """Labelled instances to form tuples of.

    Attributes:
        inputs: what a module is given of each instance, such as images, or embeddings and logits: `[m ...]` each, or
            anything that an index tensor looks instances up in.
        labels: class index of each instance, `[m]`.
        groups: id of each instance's group, `[m]`, or None.
        positions: where in its group each instance stands, `[m]`, or None for the order of the instances.
    """

    inputs: tuple[Lookup, ...]
    labels: Tensor
    groups: Tensor | None = None
    positions: Tensor | None = None

    def __post_init__(self) -> None:
        given: dict[str, Any] = {f"input {number}": one for number, one in enumerate(self.inputs)}
        more = {"groups": self.groups, "positions": self.positions}
        given |= {"labels": self.labels} | {name: one for name, one in more.items() if one is not None}
        for name, part in given.items():
            if isinstance(part, np.ndarray):
                _checks.tensor(name, part, "m ...")
        if self.labels.dtype != torch.int64 or self.labels.ndim != 1 or not len(self.labels) or self.labels.min() < 0:
            advice = "number the classes from 0" if self.labels.dtype == torch.int64 else "pass labels.long()"
            raise DataError(
                f"expected labels as class indices [m] of type int64, 0 or more, got {self.labels.dtype} "
                f"{list(self.labels.shape)}{_least(self.labels)}; {advice}"
            )
        for name, part in given.items():
            if isinstance(part, Tensor) and len(part) != len(self.labels):
                raise DataError(
                    f"expected as many instances as labels, got {len(self.labels)} labels and {name} of "
                    f"{len(part)}; pass what belongs together"
                )
            if isinstance(part, Tensor) and part.is_floating_point() and (wrong := int((~part.isfinite()).sum())):
                raise DataError(
                    f"expected finite values in {name}, got {wrong:,} that are NaN or infinite; remove these instances"
                )

    def __getitem__(self, index: Tensor) -> Instances:
        """Return some of the instances."""
        chosen = tuple(Chosen(one, index) for one in self.inputs)
        more = (None if one is None else one[index] for one in (self.groups, self.positions))
        return Instances(chosen, self.labels[index], *more)


class SharedLabelDataModule(pl.LightningDataModule):
    """Tuples of instances that share a label, for `SharedLabelModule` (images) and `AggregatorModule` (features).

    A batch is `[t n ...]` of every input, labels `[t]` and weights `[t]`: each class weighs its prior. Where tuples
    have different sizes, shorter ones repeat their last instance, and weights are `[t n]`, 0 from there on. Training
    tuples are formed anew every epoch; those of validation and test are the same in every epoch.
    With several devices each sees its share of every batch.

    Args:
        train: instances that training tuples are formed of.
        validation: for `validation_step` and `EarlyStopping`; None validates nothing.
        test: for `test_step`, and for `predict_step` unless told otherwise; None tests nothing.
        n: instances per tuple.
        batch_size: tuples per step, over all devices.
        protocol: `iid` forms tuples of any instances of a class, `grouped` of those of one group, `sequence` of
            consecutive ones of one group.
        prior: of the labels of tuples: `uniform`, `empirical` for the shares of the classes in `train`, or `[c]`.
        classes: number of classes; from the labels if None.
        partitions: how often each instance of validation and test is in a tuple, about.
        predict: tuples to predict, `[t n ...]` for each input, whose labels nobody knows.
        seed: of the tuples.
        short: keep tuples of fewer than n instances, of `grouped` and `sequence`.
        start: where tuples of `sequence` begin in their group, with its `first` instance or at `random`.
        stride: tuples of `sequence` take every so many-th instance.

    Raises:
        DataError: a class, or the largest group of a class, with fewer than n instances; groups that are missing;
            inputs that do not belong together; or a value that an option does not take.

    >>> labels = torch.arange(60) % 3
    >>> module = SharedLabelDataModule.of_tensors(torch.randn(60, 5), labels, n=4, batch_size=2)
    >>> module.setup("fit")
    >>> [tuple(part.shape) for part in next(iter(module.train_dataloader()))]
    [(2, 4, 5), (2,), (2,)]
    """

    def __init__(
        self,
        train: Instances,
        validation: Instances | None = None,
        test: Instances | None = None,
        *,
        n: int = 8,
        batch_size: int = 32,
        protocol: Protocol = IID,
        prior: Literal["uniform", "empirical"] | Tensor = "uniform",
        classes: int | None = None,
        partitions: int = 4,
        predict: Tensor | Sequence[Tensor] | None = None,
        seed: int = 0,
        short: bool = False,
        start: Literal["first", "random"] = "first",
        stride: int = 1,
    ) -> None:
        super().__init__()
        for name, number in {"n": n, "batch_size": batch_size, "partitions": partitions, "stride": stride}.items():
            _checks.whole(name, number, 1)
        _one_of("protocol", protocol, get_args(Protocol))
        _one_of("start", start, ("first", "random"))
        self.save_hyperparameters("n", "batch_size", "protocol", "partitions", "seed", "short", "start", "stride")
        self.cut = Cut(short and protocol != IID, start, stride)
        self.n, self.batch_size, self.protocol, self.partitions, self.seed = n, batch_size, protocol, partitions, seed
        given: dict[Split, Instances | None] = {"train": train, "validation": validation, "test": test}
        self.instances: Mapping[Split, Instances] = {name: one for name, one in given.items() if one is not None}
        largest = max(int(one.labels.max()) for one in self.instances.values())
        count = 1 + largest if classes is None else classes
        _checks.whole("classes", count, 1 + largest)
        self.prior = _prior(prior, train.labels, count)
        self.predicted = (predict,) if isinstance(predict, Tensor) else None if predict is None else tuple(predict)
        self._training: TupleLoader | None = None
        self._epoch = 0
        for name in self.instances:  # what is too small is refused here, not in the middle of a training
            self._tuples(name)

    @classmethod
    def of_tensors(
        cls,
        inputs: Tensor | Sequence[Tensor],
        labels: Tensor,
        groups: Tensor | None = None,
        *,
        validation: float = 0.2,
        test: float = 0.2,
        split_seed: int = 0,
        **options: Any,
    ) -> SharedLabelDataModule:
        """Split tensors by class, groups whole, and form tuples of each part.

        Args:
            inputs: images `[m C H W]`, or embeddings `[m d]` and logits `[m c]`: whatever the module reads.
            labels: `[m]`.
            groups: `[m]`, or None.
            validation: share of all instances, above 0.
            test: share of all instances, above 0.
            split_seed: seed of the split.
            options: as of the class.
        """
        if not (validation > 0 and test > 0 and validation + test < 1):
            raise DataError(
                f"expected shares validation and test above 0 that leave some for training, got {validation:g} and "
                f"{test:g}; without one of them, make the module of Instances"
            )
        every = Instances((inputs,) if isinstance(inputs, Tensor | np.ndarray) else tuple(inputs), labels, groups)
        classes = int(labels.max()) + 1
        # `train` is what the splits of a grid call `backbone` and `aggregator`.
        rest = (1 - test - validation) / (1 - test)
        shares = SplitConfig(rest / 2, rest / 2, validation / (1 - test), test, split_seed)
        roles = splits.assigned(labels, groups, shares)
        if lacking := splits.missing(labels, roles, len(ROLES), classes):
            raise DataError(
                f"expected every class in training, validation and test, got too few instances or groups of class "
                f"{lacking[1]}; add some"
            )
        validating, testing = (roles == ROLES.index(role) for role in ("validation", "test"))
        parts = (~(validating | testing), validating, testing)
        return cls(*(every[part.nonzero().flatten()] for part in parts), classes=classes, **options)

    @classmethod
    def of_data(cls, data: Data, *, protocol: Protocol = IID, train: Role = "aggregator", **options: Any) -> Any:
        """Form tuples of the images of a grid's data (`grid.prepare(experiment).data`), under its prior.

        Args:
            data: a data set with its splits.
            protocol: as of the class.
            train: the split that training tuples are formed of; networks have not seen the images of `aggregator`.
            options: as of the class.
        """

        def instances(role: Role) -> Instances:
            images = Chosen(data.dataset.images, data.splits[role])
            positions = data.dataset.positions
            own = None if positions is None else positions[data.splits[role]]
            return Instances((images,), data.labels(role), data.groups(role, protocol), own)

        roles: tuple[Role, ...] = (train, "validation", "test")
        return cls(*map(instances, roles), protocol=protocol, prior=data.prior, **options)

    def __repr__(self) -> str:
        """Say how many instances there are, and what tuples are formed of them."""
        sizes = ", ".join(f"{name}: {len(one.labels)} instances" for name, one in self.instances.items())
        return (
            f"{type(self).__name__}({sizes}; {len(self.prior)} classes, n={self.n}, batch_size={self.batch_size}, "
            f"protocol={self.protocol!r})"
        )

    __str__ = __repr__  # Lightning's own looks for data sets of loaders

    def train_dataloader(self) -> TupleLoader:
        """Return training tuples, formed anew every epoch."""
        part = self.instances["train"]
        given = part.labels, self.n, self.batch_size, self.prior, self.seed, self._groups(part)
        self._training = TupleLoader(part.inputs, *given, form=self._form(part))
        self._training.epoch = self._epoch
        return self._training

    def val_dataloader(self) -> FixedTuples | list[Any]:
        """Return all tuples of validation."""
        return self._fixed("validation") if "validation" in self.instances else []

    def test_dataloader(self) -> FixedTuples | list[Any]:
        """Return all tuples of the test instances."""
        return self._fixed("test") if "test" in self.instances else []

    def predict_dataloader(self) -> FixedTuples | list[Any]:
        """Return the tuples to predict, else those of the test instances."""
        if self.predicted is None:
            return self.test_dataloader()
        rows = torch.arange(len(self.predicted[0]))
        return FixedTuples(self.predicted, rows, (), self.batch_size)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, on which the tuples depend, so that a training that goes on gets those of its next one."""
        return {"epoch": self._epoch if self._training is None else self._training.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the tuples of another epoch."""
        self._epoch = state_dict["epoch"]
        if self._training is not None:
            self._training.epoch = self._epoch

    def _groups(self, part: Instances) -> Tensor | None:
        if self.protocol == IID:
            return None
        if part.groups is None:
            raise DataError(
                f"expected groups for protocol={self.protocol!r}, got None; pass groups, or use protocol='iid'"
            )
        return part.groups

    def _form(self, part: Instances) -> tuples.Form:
        return tuples.form(self.protocol, self.cut, None if part.positions is None else part.positions.double())

    def _tuples(self, name: Split) -> Tuples:
        part, partitions = self.instances[name], 1 if name == "train" else self.partitions
        generator = rng.generator(self.seed, "evaluation", name, self.protocol)
        return self._form(part)(part.labels, self.n, partitions, self.prior, generator, self._groups(part))

    def _fixed(self, name: Split) -> FixedTuples:
        drawn = self._tuples(name)
        labels = (drawn.labels.flatten(), weighed(drawn))
        return FixedTuples(self.instances[name].inputs, drawn.indices.flatten(0, 1), labels, self.batch_size)


def _one_of(name: str, value: Any, choices: Sequence[str]) -> None:
    if value not in choices:
        raise DataError(f"unknown {name} {value!r}; {nearest(str(value), choices)}")


def _prior(prior: Any, labels: Tensor, classes: int) -> Tensor:
    if isinstance(prior, Tensor):
        _checks.array("prior", prior, "c", 0, 1, c=classes)
        return prior
    _one_of("prior", prior, ("uniform", "empirical"))
    return tuples.prior(labels, prior, classes)


def _least(labels: Tensor) -> str:
    return f" from {labels.min().item():g} on" if len(labels) else ""


class FixedTuples:
    """Batches of the same tuples in the same order in every epoch, the last and smaller batch too.

    Args:
        inputs: what is looked up.
        indices: what to look up, `[t n]` instances, or `[t]` where whole tuples are looked up.
        parts: further tensors `[t ...]` of a batch, such as labels and weights.
        batch_size: tuples per batch, over all devices.
    """

    def __init__(self, inputs: tuple[Lookup, ...], indices: Tensor, parts: tuple[Tensor, ...], batch_size: int) -> None:
        self.inputs, self.indices, self.parts, self.batch_size = inputs, indices, parts, batch_size

    def __len__(self) -> int:
        return len(self._rows())

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        batches = self._rows()
        gathered = [looked_up(one, (self.indices[rows] for rows in batches)) for one in self.inputs]
        for rows, *instances in zip(batches, *gathered, strict=True):
            yield *instances, *(part[rows] for part in self.parts)

    def _rows(self) -> Sequence[Tensor]:
        """Return the tuples of each batch, this device's share of them; shares of devices differ by one at most."""
        world, rank = 1, 0
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        rows: Sequence[Tensor] = torch.arange(len(self.indices))[rank::world].split(max(1, self.batch_size // world))
        return rows
