"""Every data set of the plugin folder keeps the contract that splits, tuples and stages rely on."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torchvision
from PIL import Image

from sharedlabel import conformance, plugins
from sharedlabel.config import resolve
from sharedlabel.conformance import data

PER_CLASS = 20


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
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[data.Subject]:
    root = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch:
        options = FAKES[request.param](root, monkeypatch) if request.param in FAKES else {}
        yield data.Subject(resolve("data", {"name": request.param, **options}), root)


@pytest.mark.parametrize("promise", conformance.promises("data"), ids=lambda promise: promise.__name__)
def test_a_data_set_keeps_its_promises(subject: data.Subject, promise: conformance.Promise) -> None:
    try:
        promise(subject)
    except conformance.Inapplicable as reason:
        pytest.skip(str(reason))
