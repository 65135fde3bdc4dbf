"""Arrays of a file as a data set: images or features, labels, groups, names and splits."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from sharedlabel.config import parse
from sharedlabel.data import arrays
from sharedlabel.data.arrays import Config
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.types import Dataset

FEATURES = np.arange(24, dtype=np.float32).reshape(6, 4)
IMAGES = np.arange(6 * 3 * 2 * 2, dtype=np.uint8).reshape(6, 3, 2, 2)
LABELS = np.array([0, 1, 0, 1, 0, 1])


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Dataset]:
    """Write arrays to a file and load them."""

    def loaded(use: Any = None, **columns: Any) -> Dataset:
        np.savez(tmp_path / "mine.npz", **columns)
        return arrays.load(Config(str(tmp_path / "mine.npz"), use), tmp_path)

    return loaded


def test_features_are_images_of_one_pixel(load):
    dataset = load(features=FEATURES.astype(np.float64), labels=LABELS)
    assert (dataset.name, dataset.image_shape) == ("mine", (4, 1, 1))
    assert dataset.images.dtype == torch.float32
    assert torch.equal(dataset.images.flatten(1), torch.from_numpy(FEATURES))
    assert (dataset.class_names, dataset.labels.tolist()) == (("0", "1"), LABELS.tolist())
    assert (dataset.groups, dataset.holdout, dataset.remarks) == (None, None, ())


def test_images_stay_what_they_are(load):
    dataset = load(images=IMAGES, labels=LABELS)
    assert torch.equal(dataset.images, torch.from_numpy(IMAGES))
    assert load(images=IMAGES.astype(np.float16), labels=LABELS).images.dtype == torch.float32


def test_names_of_all_kinds(load):
    dataset = load(
        embeddings=FEATURES,
        labels=np.array(["eel", "cat"] * 3),
        groups=np.array(["b", "b", "a", "a", "c", "c"]),
        split=np.array(["train"] * 3 + ["test", "test", "val"]),
    )
    assert (dataset.class_names, dataset.labels.tolist()) == (("cat", "eel"), [1, 0] * 3)
    assert (dataset.group_names, dataset.groups.tolist()) == (("a", "b", "c"), [1, 1, 0, 0, 2, 2])
    assert (dataset.holdout.tolist(), dataset.validation.tolist()) == (
        [False] * 3 + [True] * 2 + [False],
        [False] * 5 + [True],
    )


def test_labels_may_start_anywhere_unless_classes_have_names(load):
    assert load(features=FEATURES, labels=LABELS + 7).class_names == ("7", "8")
    assert load(features=FEATURES, labels=LABELS, class_names=np.array(["cat", "dog"])).class_names == ("cat", "dog")
    with pytest.raises(DataError, match="expected `labels` from 0 to 1 for 2 class names, got 7; name every class"):
        load(features=FEATURES, labels=LABELS + 7, class_names=np.array(["cat", "dog"]))


def test_class_names_stand_in_a_file_beside(load, tmp_path):
    (tmp_path / "mine.json").write_text(json.dumps({"class_names": ["cat", "dog"]}))
    assert load(features=FEATURES, labels=LABELS).class_names == ("cat", "dog")
    for text in ("[]", "{}", '{"class_names": "cat"}', '{"class_names": ["cat", "cat"]}', "nothing"):
        (tmp_path / "mine.json").write_text(text)
        with pytest.raises(DataError, match=r"expected (a name of its own|.*class_names.* in .*mine\.json)"):
            load(features=FEATURES, labels=LABELS)


def test_safetensors_hold_the_same(tmp_path, load):
    columns = {"features": torch.from_numpy(FEATURES).bfloat16(), "labels": torch.from_numpy(LABELS)}
    sides = torch.tensor([0, 0, 0, 1, 1, 2])
    safetensors.torch.save_file({**columns, "split": sides}, tmp_path / "mine.safetensors")
    dataset = arrays.load(Config(str(tmp_path / "mine.safetensors")), tmp_path)
    expected = load(features=FEATURES, labels=LABELS, split=sides.numpy())
    assert dataset.fingerprint == expected.fingerprint
    assert torch.equal(dataset.holdout, expected.holdout)


def test_what_is_left_out_is_said(load):
    dataset = load(features=FEATURES, logits=FEATURES, ids=LABELS, labels=LABELS)
    assert dataset.remarks == ("2 arrays of the file are left out: `logits`, `ids`",)


def test_the_user_says_which_instances_where_there_are_several(load):
    columns = {"images": IMAGES, "features": FEATURES, "labels": LABELS}
    with pytest.raises(
        DataError, match=r"expected images, features or embeddings in .*, got `images`, `features`; set"
    ):
        load(**columns)
    assert load("images", **columns).image_shape == (3, 2, 2)
    assert load("features", **columns).image_shape == (4, 1, 1)
    with pytest.raises(
        DataError, match=r"expected embeddings in .*, got `images`, `features`, `labels`; name the array"
    ):
        load("embeddings", **columns)


def test_copies_among_features_are_known(load):
    dataset = load(features=FEATURES[[0, 1, 0, 2, 3, 1]], labels=LABELS)
    assert dataset.content.tolist() == [0, 1, 0, 2, 3, 1]


def test_the_fingerprint_is_of_the_content(load, tmp_path):
    same = load(features=FEATURES, labels=LABELS).fingerprint
    assert load(features=FEATURES, labels=LABELS, ids=LABELS).fingerprint == same
    assert load(features=FEATURES + 1, labels=LABELS).fingerprint != same
    assert load(features=FEATURES, labels=LABELS, groups=LABELS).fingerprint != same


BAD = {
    "nothing": ({}, "expected images, features or embeddings in .*, got none; name the array so"),
    "no labels": (
        {"features": FEATURES},
        "expected `labels` in .*mine.npz, got `features`; add one for every instance",
    ),
    "too few": (
        {"features": FEATURES, "labels": LABELS[:5]},
        r"one entry of `labels` for each of the 6 of `features`, got \[5\]; give",
    ),
    "too few groups": (
        {"features": FEATURES, "labels": LABELS, "groups": LABELS[:5]},
        r"one entry of `groups` for each of the 6 of",
    ),
    "one class": ({"features": FEATURES, "labels": LABELS * 0}, r"at least two classes, got 1 \(0\)"),
    "floats": (
        {"features": FEATURES, "labels": LABELS * 1.0},
        r"expected `labels` of shape \[N\], whole numbers or text",
    ),
    "one hot": (
        {"features": FEATURES, "labels": np.eye(6, 2)},
        r"expected `labels` of shape \[N\], .* got float64 \[6, 2\]",
    ),
    "objects": (
        {"features": FEATURES, "labels": LABELS.astype(object)},
        "as 'labels' in .*, got Python objects, which",
    ),
    "rank": (
        {"features": IMAGES, "labels": LABELS},
        r"expected `features` of shape \[N d\], got \[6, 3, 2, 2\]; resha",
    ),
    "grey": ({"images": IMAGES[:, 0], "labels": LABELS}, r"expected `images` of shape \[N C H W\], got \[6, 2, 2\]"),
    "empty": ({"features": FEATURES[:, :0], "labels": LABELS}, r"expected `features` of shape \[N d\], got \[6, 0\]"),
    "channels last": (
        {"images": np.zeros((6, 9, 9, 3)), "labels": LABELS},
        r"channels last; transpose it by \(0, 3, 1, 2",
    ),
    "16 bits": (
        {"images": IMAGES.astype(np.uint16), "labels": LABELS},
        "expected uint8 or floats as `images`, got uint16",
    ),
    "complex": (
        {"features": FEATURES * 1j, "labels": LABELS},
        "expected numbers as `features`, got complex64; convert",
    ),
    "texts": (
        {"features": FEATURES.astype(str), "labels": LABELS},
        "expected numbers as `features`, got <U32; convert it",
    ),
    "not finite": (
        {"features": FEATURES * [1, 1, 1, np.nan], "labels": LABELS},
        "expected finite images, got NaN or infinity in",
    ),
    "too large": ({"features": FEATURES * np.float64(1e300), "labels": LABELS}, "got NaN or infinity in instance 0"),
    "odd split": (
        {"features": FEATURES, "labels": LABELS, "split": np.array(["train", "dev"] * 3)},
        "expected `split` of train, test, validation, val, got 'dev'; rename it",
    ),
    "odd side": (
        {"features": FEATURES, "labels": LABELS, "split": LABELS + 2},
        "expected `split` of 0, 1, 2, got '3'; ren",
    ),
    "no test": (
        {"features": FEATURES, "labels": LABELS, "split": LABELS * 0},
        "train and test in `split`, got no test; add",
    ),
    "class numbers": (
        {"features": FEATURES, "labels": LABELS, "class_names": LABELS},
        "expected texts as `class_names`",
    ),
    "named twice": (
        {"features": FEATURES, "labels": np.array(list("abcabc")), "class_names": np.array(["a"])},
        "that count f",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_a_sentence(load, case):
    columns, message = BAD[case]
    with pytest.raises(DataError, match=message):
        load(**columns)


def header(shape: tuple[int, ...]) -> bytes:
    """Write the beginning of an array that is larger than what follows."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return file.getvalue() + b"1234"


def zipped(path: Path, **members: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)


def test_files_of_strangers_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "odd.npz"

    def refused(match: str, name: str = "odd.npz", kind: type[Exception] = DataError) -> None:
        with pytest.raises(kind, match=match):
            arrays.load(Config(str(tmp_path / name)), tmp_path)

    refused("expected a file, got nothing at")
    refused(r"expected a file that ends in .npz or .safetensors, got .*odd.pt; save it", "odd.pt")
    path.mkdir()
    refused("expected a file, got a folder at")
    path.rmdir()
    os.mkfifo(path)
    refused("expected a file, got a pipe or device at")
    path.unlink()
    path.write_bytes(b"no zip")
    refused("expected a file of arrays, got File is not a zip file in .*; write it again")
    (tmp_path / "odd.safetensors").write_bytes(b"\xff" * 20)
    refused("expected a file of arrays, got .*odd.safetensors; write it again", "odd.safetensors")
    zipped(path, features=header((2**40, 2**20)), labels=b"")
    refused("expected 'features' whole in .*, got a part of its")
    zipped(path, features=b"\x93NUMPY\x01\x00\x02\x00{}", labels=b"")
    refused("expected a file of arrays, got .* in .*odd.npz; write it again")
    zipped(path, **{f"a{number}": b"" for number in range(1001)})
    refused("expected at most 1000 arrays in .*, got 1001")
    np.savez(path, features=FEATURES, labels=LABELS)
    monkeypatch.setattr("sharedlabel.machine.memory.total", lambda: 100)
    refused("data.path: features of odd.npz: expected what fits into the 100 bytes of memory", kind=ConfigError)
    with pytest.raises(DataError, match=r"expected the path of a .npz or .safetensors file, got none; set `path`"):
        arrays.load(Config(), tmp_path)


def test_a_grid_on_features_of_a_foundation_model(tmp_path, small, run):
    """The scale of a feature does not matter; with groups, a network that can be pruned and a linear one."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], 400)
    features = generator.normal(size=(800, 5)) + labels[:, None] * [2, 2, 0, 0, 0]
    columns = {"labels": labels, "groups": np.arange(800) // 4, "logits": features[:, :2]}
    np.savez(tmp_path / "x.npz", features=features * [1, 1000, 1, 1, 1], **columns)
    options = ("--data.name=arrays", f"--data.path={tmp_path / 'x.npz'}", "--aggregators=[log_pool]")
    networks = "--backbones=[{name: mlp, label: mlp, widths: [16]}, {name: mlp, label: linear, widths: []}]"
    rest = (
        "--evaluation.n=[1, 4]",
        "--evaluation.protocols=[grouped]",
        "--adaptive.rules=[]",
        "--pruners=[none]",
        "--margin.epsilons=[]",
    )
    experiment = parse(
        [
            *small,
            *options,
            networks,
            *rest,
            "--dense.batch_size=16",
            "--dense.epochs=4",
            "--ratios=[1]",
            "--latency.seconds=0.01",
        ]
    )[0]
    finished = run(experiment)
    assert not finished.results.failures
    assert finished.results.config["data"] == {"name": "arrays", "path": "x.npz"}
    scores = {(row.backbone, row.n): row.n_accuracy for row in finished.results.rows if row.split == "test"}
    for backbone in ("mlp", "linear"):
        assert scores[backbone, 4] > scores[backbone, 1] > 0.7
