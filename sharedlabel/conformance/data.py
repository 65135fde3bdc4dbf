"""What every data set promises: see `Dataset` in `types.py`."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
import weakref
from pathlib import Path
from types import ModuleType

import torch

from sharedlabel import plugins, rng
from sharedlabel.config import Plugin
from sharedlabel.config.sections import SplitConfig
from sharedlabel.conformance._promise import Inapplicable, Promises, expect, refused
from sharedlabel.data.splits import split
from sharedlabel.data.tuples import partition, prior
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset

_SPLIT = SplitConfig(backbone=0.7, aggregator=0.2, validation=0.1, test=0.2, groups="divided")
_SHARES = {"backbone": 0.7, "aggregator": 0.2, "validation": 0.1}
PROMISES = Promises()


class Subject:
    """A data set that is tried.

    Args:
        plugin: with its options.
        root: folder of downloads; a temporary one if None.
    """

    def __init__(self, plugin: Plugin, root: Path | None = None) -> None:
        self.plugin = plugin
        self._root = root or Path(tempfile.mkdtemp())
        if root is None:
            weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)

    @property
    def module(self) -> ModuleType:
        """The plugin's module."""
        return plugins.load("data", self.plugin.name)

    def load(self) -> Dataset:
        """Load it anew."""
        dataset: Dataset = self.module.load(self.plugin.config, self._root)
        return dataset

    @functools.cached_property
    def dataset(self) -> Dataset:
        """Loaded once.

        Raises:
            Inapplicable: its files are not there.
        """
        try:
            return self.load()
        except DataError as error:
            raise Inapplicable(f"its data are not on this machine: {error}") from error


def _pixels(dataset: Dataset) -> torch.Tensor:
    """Return all images in memory, where those in files are put."""
    images = dataset.images
    return images if isinstance(images, torch.Tensor) else images[torch.arange(len(images))]


@PROMISES.add
def documented_options(subject: Subject) -> None:
    """Its options are frozen, have defaults, and are explained."""
    config = subject.module.Config()
    expect(config == subject.module.Config(), "expected equal options to be equal")
    text = subject.module.Config.__doc__ or ""
    for item in dataclasses.fields(config):
        refused(lambda name=item.name: setattr(config, name, None), dataclasses.FrozenInstanceError)  # type: ignore[misc]
        expect(f"{item.name}:" in text, f"expected a line '{item.name}: ...' in the docstring of Config, got none")


@PROMISES.add
def whole(subject: Subject) -> None:
    """Images are four-dimensional and finite, every class has some, and every column has an entry for each."""
    dataset = subject.dataset
    expect(
        dataset.images.dtype in {torch.uint8, torch.float32}, f"expected uint8 or float32, got {dataset.images.dtype}"
    )
    expect(len(dataset.images.shape) == 4, f"expected images [N C H W], got {list(dataset.images.shape)}")
    expect(_pixels(dataset).float().isfinite().all(), "expected finite images, got NaN or infinity")
    expect(
        len(set(dataset.class_names)) == dataset.num_classes >= 2, f"expected two classes, got {dataset.class_names}"
    )
    counts = torch.bincount(dataset.labels, minlength=dataset.num_classes)
    expect(
        len(counts) == dataset.num_classes and counts.min() > 0, f"expected some of every class, got {counts.tolist()}"
    )
    for name in ("labels", "groups", "holdout"):
        column = getattr(dataset, name)
        expect(column is None or column.shape == dataset.images.shape[:1], f"expected one of {name} for every image")


@PROMISES.add
def reproducible(subject: Subject) -> None:
    """A second load gives the same, with the same fingerprint."""
    dataset, again = subject.dataset, subject.load()
    expect(len(dataset.fingerprint) == 64, "expected a sha256 as the fingerprint; see data/_checks.py")
    expect(again.fingerprint == dataset.fingerprint, "expected the same fingerprint twice, got two")
    same = torch.equal(_pixels(again), _pixels(dataset)) and torch.equal(again.labels, dataset.labels)
    expect(
        same and again.class_names == dataset.class_names,
        "expected the same data twice, got others; seed what is drawn",
    )


@PROMISES.add
def splits(subject: Subject) -> None:
    """Splits are disjoint, hold everything, and have their shares of every class."""
    dataset = subject.dataset
    roles = split(dataset, _SPLIT)
    together = torch.cat(list(roles.values()))
    expect(
        torch.equal(together.sort().values, torch.arange(dataset.labels.numel())), "expected every image in one split"
    )
    sizes = torch.bincount(dataset.labels)
    if dataset.holdout is not None:
        expect(dataset.holdout[roles["test"]].all(), "expected the test images of the source in the split `test`")
        sizes = torch.bincount(dataset.labels[~dataset.holdout])
    else:
        sizes = sizes - torch.bincount(dataset.labels[roles["test"]])
    for role, share in _SHARES.items():
        counts = torch.bincount(dataset.labels[roles[role]], minlength=dataset.num_classes)  # type: ignore[index]
        shared = ((counts - share * sizes).abs() <= 1.5).all()
        expect(shared, f"expected {share:.0%} of every class in {role}, got {counts.tolist()} of {sizes.tolist()}")


@PROMISES.add
def tuples(subject: Subject) -> None:
    """Tuples of every split are disjoint, and of one class."""
    dataset = subject.dataset
    for role, indices in split(dataset, _SPLIT).items():
        labels = dataset.labels[indices]
        n = min(4, int(torch.bincount(labels).min()))
        drawn = partition(labels, n, 2, prior(labels, "empirical", dataset.num_classes), rng.generator(0, role), None)
        for members, shared in zip(drawn.indices, drawn.labels, strict=True):
            expect(members.unique().numel() == members.numel(), f"expected no image twice in the tuples of {role}")
            expect((labels[members] == shared[:, None]).all(), f"expected tuples of one class in {role}")
        expect((drawn.weights.sum(1) - 1).abs().max() < 1e-6, f"expected weights that sum to 1 in {role}")
