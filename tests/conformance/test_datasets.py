"""Every data set of the plugin folder keeps the contract that splits, tuples and stages rely on."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from sharedlabel import plugins, rng
from sharedlabel.config import SplitConfig
from sharedlabel.data.splits import split
from sharedlabel.data.tuples import partition, prior
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset

PER_CLASS = 20
SPLIT = SplitConfig(backbone=0.7, aggregator=0.2, validation=0.1, test=0.2, groups="divided")
Prepared = tuple[ModuleType, Any, Path]


def fake_idx(kind: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, object]]:
    def write(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
        raw = root / kind / "raw"
        raw.mkdir(parents=True)
        for part in ("train", "t10k"):
            count = 10 * PER_CLASS
            pixels = np.random.default_rng(len(part)).integers(0, 256, (count, 28, 28), dtype=np.uint8)
            labels = bytes(index % 10 for index in range(count))
            header = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28)
            (raw / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
            (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, count) + labels)
        return {}

    return write


def fake_cifar(kind: str, classes: int, key: str) -> Callable[[Path, pytest.MonkeyPatch], dict[str, object]]:
    def write(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
        source = getattr(torchvision.datasets, kind)
        folder = root / source.base_folder
        folder.mkdir(parents=True)

        def store(file: str, content: object) -> str:
            data = pickle.dumps(content)
            (folder / file).write_bytes(data)
            return hashlib.md5(data, usedforsecurity=False).hexdigest()

        labels = list(range(classes)) * PER_CLASS
        for attribute in ("train_list", "test_list"):
            files = [file for file, _ in getattr(source, attribute)]
            pixels = [np.random.default_rng(i).integers(0, 256, (len(labels), 3072)) for i in range(len(files))]
            batches = [{"data": part.astype(np.uint8), key: labels} for part in pixels]
            entries = [[file, store(file, batch)] for file, batch in zip(files, batches, strict=True)]
            monkeypatch.setattr(source, attribute, entries)
        names = {source.meta["key"]: [f"thing {index}" for index in range(classes)]}
        monkeypatch.setattr(source, "meta", source.meta | {"md5": store(source.meta["filename"], names)})
        return {}

    return write


def fake_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    for side in ("train", "test"):
        for label in ("cat", "dog", "eel"):
            for index in range(PER_CLASS):
                file = root / "pets" / side / label / f"{side} {index % 2}" / f"{index}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                buffer = io.BytesIO()
                image = Image.new("L", (3, 5), 7 * index)
                image.putpixel((1, 1), 200)
                image.save(buffer, "png")
                file.write_bytes(buffer.getvalue())
    return {"path": str(root / "pets"), "groups": "level:1"}


def fake_arrays(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    features = np.random.default_rng(0).normal(size=(3 * PER_CLASS, 4))
    np.savez(root / "x.npz", features=features, labels=np.repeat(["cat", "dog", "eel"], PER_CLASS))
    return {"path": str(root / "x.npz")}


# What stands in for files that this test may not download. Other data sets are loaded with their default options.
FAKES = {
    "arrays": fake_arrays,
    "mnist": fake_idx("MNIST"),
    "fashion_mnist": fake_idx("FashionMNIST"),
    "cifar10": fake_cifar("CIFAR10", 10, "labels"),
    "cifar100": fake_cifar("CIFAR100", 100, "fine_labels"),
    "imagefolder": fake_folder,
}


@pytest.fixture(scope="module", params=plugins.available("data"))
def prepared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    module = plugins.load("data", request.param)
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch:
        options = FAKES[request.param](root, monkeypatch) if request.param in FAKES else {}
        yield module, module.Config(**options), root


@pytest.fixture(scope="module")
def dataset(prepared: Prepared) -> Dataset:
    module, config, root = prepared
    try:
        loaded: Dataset = module.load(config, root)
    except DataError as error:
        pytest.skip(f"its files are not on this machine: {error}")
    return loaded


def test_config_is_frozen_and_has_defaults(prepared: Prepared) -> None:
    module, _, _ = prepared
    config = module.Config()
    assert config == module.Config()
    for field in dataclasses.fields(config):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(config, field.name, None)
    assert all(f"{field.name}:" in (module.Config.__doc__ or "") for field in dataclasses.fields(config))


def test_images_and_labels(dataset: Dataset) -> None:
    assert dataset.images.dtype in {torch.uint8, torch.float32}
    assert dataset.images.ndim == 4
    assert dataset.images.float().isfinite().all()
    assert len(set(dataset.class_names)) == dataset.num_classes >= 2
    assert torch.bincount(dataset.labels, minlength=dataset.num_classes).min() > 0
    for column in (dataset.labels, dataset.groups, dataset.holdout):
        assert column is None or column.shape == dataset.images.shape[:1]


def test_a_second_load_gives_the_same(prepared: Prepared, dataset: Dataset) -> None:
    module, config, root = prepared
    again = module.load(config, root)
    assert again.fingerprint == dataset.fingerprint
    assert len(dataset.fingerprint) == 64
    assert torch.equal(again.images, dataset.images)
    assert torch.equal(again.labels, dataset.labels)
    assert again.class_names == dataset.class_names


def test_splits_are_disjoint_exhaustive_and_stratified(dataset: Dataset) -> None:
    roles = split(dataset, SPLIT)
    together = torch.cat(list(roles.values()))
    assert torch.equal(together.sort().values, torch.arange(dataset.labels.numel()))
    sizes = torch.bincount(dataset.labels)
    if dataset.holdout is not None:
        assert dataset.holdout[roles["test"]].all()
        sizes = torch.bincount(dataset.labels[~dataset.holdout])
    else:
        sizes = sizes - torch.bincount(dataset.labels[roles["test"]])
    for role, share in (("backbone", 0.7), ("aggregator", 0.2), ("validation", 0.1)):
        counts = torch.bincount(dataset.labels[roles[role]], minlength=dataset.num_classes)  # type: ignore[index]
        assert ((counts - share * sizes).abs() <= 1.5).all()


def test_tuples_of_every_role_are_disjoint_and_pure(dataset: Dataset) -> None:
    for role, indices in split(dataset, SPLIT).items():
        labels = dataset.labels[indices]
        n = min(4, int(torch.bincount(labels).min()))
        tuples = partition(labels, n, 2, prior(labels, "empirical", dataset.num_classes), rng.generator(0, role), None)
        for members, shared in zip(tuples.indices, tuples.labels, strict=True):
            assert members.unique().numel() == members.numel()
            assert (labels[members] == shared[:, None]).all()
        assert tuples.weights.sum(1).tolist() == pytest.approx([1.0, 1.0])
