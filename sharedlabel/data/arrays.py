"""Arrays of a .npz or .safetensors file: images, or features of a network that somebody else has trained.

    data: {name: arrays, path: animals.npz}

| array | shape | what |
| --- | --- | --- |
| `images` | `[N C H W]` | `uint8`, or floats; or instead: |
| `features` or `embeddings` | `[N d]` | numbers; an instance is then an "image" of `d` channels and one pixel |
| `labels` | `[N]` | whole numbers, or names of classes |
| `groups` | `[N]` | optional: what shows the same thing, as numbers or names |
| `positions` | `[N]` | optional: where in its group an instance stands, such as the number or the time of a frame |
| `class_names` | `[c]` | optional: then labels are whole numbers from 0 to c - 1 |
| `split` | `[N]` | optional: `train`, `test` or `validation`; or 0, 1 or 2 |

A .safetensors file holds no texts: class names may stand in a JSON file beside it, `{"class_names": [...]}`, which is
called like it but for the end.

Features are standardised, each on its own, by the backbone, and learnt from by `mlp`, which can be pruned like any
network; with `widths: []` it is the linear classifier on the features themselves. Logits that stand beside them are
left out: the grid's own networks make theirs, since they are what is compressed.

    np.savez("animals.npz", features=features, labels=labels, groups=tracks)
    sharedlabel train --data.name=arrays --data.path=animals.npz --backbones='[mlp]'
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sharedlabel.data import _arrays, _checks
from sharedlabel.errors import DataError, home
from sharedlabel.files.plain import read_file, read_json
from sharedlabel.types import Dataset

_FEATURES = ("features", "embeddings")
_TRAIN, _TEST, _VALIDATION = range(3)
_SIDES = {"train": _TRAIN, "test": _TEST, "validation": _VALIDATION, "val": _VALIDATION}
_SIDECAR = 2**24  # bytes
_COLUMNS = ("labels", "groups", "positions", "class_names", "split")


@dataclass(frozen=True)
class Config:
    """Arrays of a file.

    Args:
        path: .npz or .safetensors file with `labels` and `images`, `features` or `embeddings`; `~` is the home folder.
        use: which of them to look at where the file holds several; null where it holds one.
    """

    path: str = ""
    use: Literal["images", "features", "embeddings"] | None = None


def load(config: Config, root: Path) -> Dataset:
    """Load the arrays.

    Args:
        config: options of this data set.
        root: not used, nothing is stored.

    Returns:
        `uint8` or `float32` images `[N C H W]`; features as `float32 [N d 1 1]`.

    Raises:
        DataError: the file, or an array, is not there or not of its shape and type; the message says which.
        ConfigError: it does not fit into memory.
    """
    del root
    if not config.path:
        raise DataError("arrays: expected the path of a .npz or .safetensors file, got none; set `path`")
    path = home(config.path)
    listed = _arrays.names(path)
    source = _source(config, path, listed)
    wanted = [name for name in (source, *_COLUMNS) if name in listed]
    arrays = _arrays.read(path, wanted)
    if "labels" not in arrays:
        raise DataError(f"arrays: expected `labels` in {path}, got {_listing(listed)}; add one for every instance")
    images = _images(source, arrays[source])
    for column in ("labels", "groups", "positions", "split"):
        if column in arrays and arrays[column].shape[:1] != images.shape[:1]:
            raise DataError(
                f"arrays: expected one entry of `{column}` for each of the {len(images)} of `{source}`, got "
                f"{list(arrays[column].shape)}; give every instance one"
            )
    names = _class_names(path, arrays.get("class_names"))
    labels, names = _labels(arrays["labels"], names)
    groups, group_names = (None, None) if "groups" not in arrays else _numbered("groups", arrays["groups"])
    positions = _positions(arrays["positions"]) if "positions" in arrays else None
    sides = None if "split" not in arrays else _sides(arrays["split"])
    unused = [name for name in listed if name not in wanted]
    return _checks.validate(
        Dataset(
            name=path.absolute().stem,
            images=images,
            labels=labels,
            class_names=names,
            groups=groups,
            holdout=None if sides is None else sides == _TEST,
            fingerprint=_checks.fingerprint(images, labels, names, groups, positions),
            validation=sides == _VALIDATION if sides is not None and (sides == _VALIDATION).any() else None,
            group_names=group_names,
            content=_contents(images) if images.is_floating_point() else None,
            positions=positions,
            remarks=(f"{len(unused)} arrays of the file are left out: {_listing(unused)}",) if unused else (),
        )
    )


def _positions(column: NDArray[Any]) -> Tensor:
    if column.ndim != 1 or column.dtype.kind not in "iuf":
        raise DataError(
            f"arrays: expected `positions` as numbers [N], got {column.dtype} {list(column.shape)}; give every "
            "instance the number or the time of its frame"
        )
    return torch.from_numpy(column.astype(np.float64))


def _source(config: Config, path: Path, listed: list[str]) -> str:
    """Return the name of the array that holds the instances."""
    there = [name for name in ("images", *_FEATURES) if name in listed]
    if config.use is not None:
        there = [config.use] if config.use in there else []
    if len(there) == 1:
        return there[0]
    wanted = config.use or "images, features or embeddings"
    advice = "set `use` to one of them" if there else "name the array so"
    raise DataError(f"arrays: expected {wanted} in {path}, got {_listing(there or listed)}; {advice}")


def _images(name: str, array: NDArray[Any]) -> Tensor:
    """Return instances as images: features as images of one pixel."""
    rank = 4 if name == "images" else 2
    shape = "[N C H W]" if rank == 4 else "[N d]"
    if array.ndim != rank or 0 in array.shape:
        raise DataError(f"arrays: expected `{name}` of shape {shape}, got {list(array.shape)}; reshape it")
    if rank == 4 and array.shape[1] > 4 >= array.shape[3]:
        raise DataError(
            f"arrays: expected `images` of shape {shape}, got {list(array.shape)}, with the channels last; transpose "
            "it by (0, 3, 1, 2)"
        )
    if not (array.dtype.kind == "f" or array.dtype == np.uint8 or (rank == 2 and array.dtype.kind in "iu")):
        kinds = "numbers" if rank == 2 else "uint8 or floats"
        raise DataError(f"arrays: expected {kinds} as `{name}`, got {array.dtype}; convert it")
    if rank == 4 and array.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(array))
    with np.errstate(over="ignore"):  # becomes infinity, which is refused with the number of the instance
        instances = torch.from_numpy(array.astype(np.float32))
    return instances if rank == 4 else instances[:, :, None, None]


def _labels(array: NDArray[Any], names: tuple[str, ...] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Return labels as indices of classes, and the names of the classes."""
    if names is None:
        return _numbered("labels", array)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise DataError(
            f"arrays: expected `labels` [N] that count from 0 where there are class names, got {array.dtype} "
            f"{list(array.shape)}; leave the class names out, or number the labels"
        )
    outside = (array < 0) | (array >= len(names))
    if outside.any():
        raise DataError(
            f"arrays: expected `labels` from 0 to {len(names) - 1} for {len(names)} class names, got "
            f"{array[outside][0]}; name every class"
        )
    return torch.from_numpy(array.astype(np.int64)), names


def _numbered(name: str, array: NDArray[Any]) -> tuple[Tensor, tuple[str, ...]]:
    """Return the sorted values of a column as texts, and which of them each instance has."""
    if array.ndim != 1 or array.dtype.kind not in "iuUS":
        raise DataError(
            f"arrays: expected `{name}` of shape [N], whole numbers or texts, got {array.dtype} {list(array.shape)}; "
            "convert it"
        )
    values, numbers = np.unique(array, return_inverse=True)
    return torch.from_numpy(numbers.astype(np.int64)), tuple(map(_text, values.tolist()))


def _sides(array: NDArray[Any]) -> Tensor:
    """Return where each instance is: 0 in training, 1 in test, 2 in validation."""
    numbers, values = _numbered("split", array)
    sides = {str(side): side for side in range(3)} if array.dtype.kind in "iu" else _SIDES
    if unknown := [value for value in values if value not in sides]:
        raise DataError(f"arrays: expected `split` of {', '.join(sides)}, got {unknown[0]!r}; rename it")
    chosen = torch.tensor([sides[value] for value in values])[numbers]
    for side, what in ((_TRAIN, "train"), (_TEST, "test")):
        if not (chosen == side).any():
            raise DataError(
                f"arrays: expected train and test in `split`, got no {what}; add some, or leave `split` out"
            )
    return chosen


def _class_names(path: Path, array: NDArray[Any] | None) -> tuple[str, ...] | None:
    """Return the names of classes, from the file or from the JSON file beside it; None without any."""
    beside = path.with_suffix(".json")
    if array is not None:
        if array.ndim != 1 or array.dtype.kind not in "US":
            raise DataError(f"arrays: expected texts as `class_names`, got {array.dtype} {list(array.shape)}; use str")
        names = [_text(name) for name in array.tolist()]
    elif beside.is_file():
        try:
            names = read_json(read_file(beside, _SIDECAR))["class_names"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'arrays: expected {{"class_names": [...]}} in {beside}, got {error}; correct it'
            ) from error
    else:
        return None
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names) and len(set(names)) == len(names)):
        raise DataError(f"arrays: expected a name of its own for every class of {path}, got {names!r:.200}; rename one")
    return tuple(names)


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _contents(images: Tensor) -> Tensor:
    """Return a number for each content, the same for exact copies."""
    numbers: dict[bytes, int] = {}
    digests = (hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in images.flatten(1).numpy())
    return torch.tensor([numbers.setdefault(digest, len(numbers)) for digest in digests])


def _listing(listed: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in listed[:10]) + (", ..." if len(listed) > 10 else "") if listed else "none"
