from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
import tarfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from sharedlabel import plugins
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset

NAMES = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "cifar10": "CIFAR10", "cifar100": "CIFAR100"}


def load(name: str, root: Path, *, download: bool = False) -> Dataset:
    module = plugins.load("data", name)
    dataset: Dataset = module.load(module.Config(download=download), root)
    return dataset


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def mnist_files(seed: int = 0) -> dict[str, bytes]:
    rng = np.random.default_rng(seed)
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        pixels = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        files[f"{part}-images-idx3-ubyte"] = struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + pixels.tobytes()
        files[f"{part}-labels-idx1-ubyte"] = struct.pack(">HBBI", 0, 8, 1, count) + bytes(i % 10 for i in range(count))
    return files


def write_cifar(folder: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write tiny batches in CIFAR's own format and let torchvision expect their checksums."""
    source = getattr(torchvision.datasets, kind)
    folder.mkdir(parents=True)
    classes, key = (10, "labels") if kind == "CIFAR10" else (100, "fine_labels")
    rng = np.random.default_rng(0)
    for attribute in ("train_list", "test_list"):
        entries = []
        for file, _ in getattr(source, attribute):
            pixels = rng.integers(0, 256, (classes, 3072), dtype=np.uint8)
            (folder / file).write_bytes(pickle.dumps({"data": pixels, key: list(range(classes))}))
            entries.append([file, md5(folder / file)])
        monkeypatch.setattr(source, attribute, entries)
    meta = folder / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: [f"thing {index}" for index in range(classes)]}))
    monkeypatch.setattr(source, "meta", source.meta | {"md5": md5(meta)})


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_reads_idx_files(name: str, tmp_path: Path) -> None:
    raw = tmp_path / NAMES[name] / "raw"
    raw.mkdir(parents=True)
    files = mnist_files()
    for file, data in files.items():
        (raw / file).write_bytes(data)
    dataset = load(name, tmp_path)
    assert dataset.name == name
    assert dataset.images.shape == (30, 1, 28, 28)
    written = files["train-images-idx3-ubyte"][16:] + files["t10k-images-idx3-ubyte"][16:]
    assert dataset.images.numpy().tobytes() == written
    assert dataset.labels.tolist() == [*range(10)] * 3
    assert dataset.holdout is not None
    assert dataset.holdout.tolist() == [False] * 20 + [True] * 10
    assert dataset.num_classes == 10


@pytest.mark.parametrize(("name", "batches"), [("cifar10", 5), ("cifar100", 1)])
def test_reads_cifar_batches(name: str, batches: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = NAMES[name]
    folder = tmp_path / getattr(torchvision.datasets, kind).base_folder
    write_cifar(folder, kind, monkeypatch)
    dataset = load(name, tmp_path)
    assert dataset.images.shape == ((batches + 1) * dataset.num_classes, 3, 32, 32)
    test = pickle.loads((folder / ("test_batch" if name == "cifar10" else "test")).read_bytes())
    assert dataset.images[dataset.holdout].flatten(1).numpy().tolist() == test["data"].tolist()
    assert dataset.class_names[3] == "thing 3"


@pytest.mark.parametrize("name", NAMES)
def test_absent_files_name_the_option(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"files of {name} in {tmp_path}.*set `download: true`"):
        load(name, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_offline_says_which_files_to_put_where(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise URLError("no network")

    for module in (torchvision.datasets.mnist, torchvision.datasets.cifar):
        monkeypatch.setattr(module, "download_and_extract_archive", refuse)
    expected = "train-images-idx3-ubyte.gz.* into .*/raw" if "mnist" in name else r"python\.tar\.gz into "
    with pytest.raises(DataError, match=f"expected to download {name}.*offline.*{expected}"):
        load(name, tmp_path, download=True)


def test_mnist_archives_put_by_hand_are_used_as_the_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for file, data in mnist_files().items():
        (raw / f"{file}.gz").write_bytes(gzip.compress(data))
        resources.append((f"{file}.gz", md5(raw / f"{file}.gz")))
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    assert load("mnist", tmp_path, download=True).labels.numel() == 30


def test_cifar_archive_put_by_hand_is_used_as_the_message_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = torchvision.datasets.CIFAR10
    write_cifar(tmp_path / "elsewhere", "CIFAR10", monkeypatch)
    root = tmp_path / "root"
    root.mkdir()
    with tarfile.open(root / source.filename, "w:gz") as archive:
        archive.add(tmp_path / "elsewhere", source.base_folder)
    monkeypatch.setattr(source, "tgz_md5", md5(root / source.filename))
    assert load("cifar10", root, download=True).labels.numel() == 60


def test_corrupt_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / torchvision.datasets.CIFAR10.base_folder
    write_cifar(folder, "CIFAR10", monkeypatch)
    with (folder / "data_batch_3").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"files of cifar10 .* got: Dataset not found or corrupted"):
        load("cifar10", tmp_path)
