"""Tuples of image files: a folder of sub-folders, or a CSV of groups."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from sharedlabel.data._decode import decode_named
from sharedlabel.data._source import readable, visible
from sharedlabel.deployment.card import Preprocessing
from sharedlabel.errors import DataError

_COLUMNS = ("group", "path")
_LISTED = 8
_COLOURS = {1: "grey", 3: "colour"}


@dataclass(frozen=True)
class Group:
    """Image files that show the same thing.

    Attributes:
        name: of the sub-folder or the group.
        paths: of the files, in the order in which they are looked at: sorted.
    """

    name: str
    paths: tuple[Path, ...]


def read_groups(source: Path) -> tuple[Group, ...]:
    """List the tuples of a folder with one sub-folder each, or of a CSV with the columns group and path.

    Groups and files are sorted by name. Paths in a CSV are relative to its folder. Hidden files are left out.

    Raises:
        DataError: no tuples, an empty one, files or folders where none belong, or a row that names no file.
    """
    if source.is_dir():
        with readable(source):
            return _from_folder(source)
    if source.is_file():
        return _from_table(source)
    raise DataError(
        f"expected a folder of tuples (one sub-folder each) or a CSV with the columns group and path at {source}, "
        "got nothing; check the path"
    )


def read_images(group: Group, wanted: Preprocessing) -> Iterator[UInt8[Tensor, "C H W"]]:
    """Decode a tuple's files one at a time, as the images that the model was trained on were decoded.

    Raises:
        DataError: the model takes no image files, or a file that cannot be read, is no image or does not fit.
    """
    if wanted.dtype != "uint8":
        raise DataError(
            f"expected a model of images, got one of {wanted.dtype} instances, which no image file holds; "
            "use sharedlabel.deployment.predictor on tensors"
        )
    for path in group.paths:
        with readable(path):
            data = path.read_bytes()
        pixels = decode_named(str(path), data, wanted.resize, wanted.convert)
        _check(pixels.shape, str(path), wanted)
        yield torch.from_numpy(pixels.copy())


def _from_folder(source: Path) -> tuple[Group, ...]:
    inside = sorted(path for path in source.iterdir() if visible(path.name))
    folders = [path for path in inside if path.is_dir()]
    if len(folders) < len(inside):
        stray = next(path.name for path in inside if not path.is_dir())
        raise DataError(
            f"expected only sub-folders in {source}, one per tuple, got the file {stray!r}; "
            "put images that show the same thing into a sub-folder of their own"
        )
    if not folders:
        raise DataError(f"expected sub-folders with images in {source}, one per tuple, got none; add one")
    return tuple(Group(folder.name, _files(folder)) for folder in folders)


def _files(folder: Path) -> tuple[Path, ...]:
    inside = sorted(path for path in folder.iterdir() if visible(path.name))
    if not inside:
        raise DataError(f"expected images in every sub-folder, got none in {folder}; add some or remove it")
    for path in inside:
        if path.is_dir():
            raise DataError(f"expected images in {folder}, got the folder {path.name!r}; move its images up")
    return tuple(inside)


def _from_table(source: Path) -> tuple[Group, ...]:
    with readable(source):
        data = source.read_bytes()
    try:
        reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        rows, columns = [(reader.line_num, row) for row in reader], list(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a CSV of UTF-8 text at {source}, got: {error}; save it as that") from error
    if missing := [name for name in _COLUMNS if name not in columns]:
        some = ", ".join(map(repr, columns[:_LISTED])) + (", ..." if len(columns) > _LISTED else "")
        raise DataError(
            f"expected the columns group and path in {source}, got {some or 'none'}; add {' and '.join(missing)}"
        )
    if twice := [name for name in _COLUMNS if columns.count(name) > 1]:
        raise DataError(f"expected the columns group and path once each in {source}, got {twice[0]} twice; remove one")
    found: dict[str, set[Path]] = {}
    for number, row in rows:
        path = _path(row, number, source)
        paths = found.setdefault(row["group"], set())
        if path in paths:
            raise DataError(
                f"expected every image once in a group, got {row['path']!r} twice in {row['group']!r} "
                f"(line {number} of {source}); remove one"
            )
        paths.add(path)
    if not found:
        raise DataError(f"expected rows with a group and a path in {source}, got none; add some")
    return tuple(Group(name, tuple(sorted(found[name]))) for name in sorted(found))


def _path(row: dict[str, str | None], number: int, source: Path) -> Path:
    """Return the file that a row names."""
    for name in _COLUMNS:
        if not row[name]:
            raise DataError(f"expected a {name} in line {number} of {source}, got none; fill it in or remove the row")
    path = (source.parent / str(row["path"])).resolve()
    if not path.is_file():
        raise DataError(f"expected an image at {path} (line {number} of {source}), got no file; correct the path")
    return path


def _check(shape: tuple[int, ...], name: str, wanted: Preprocessing) -> None:
    if shape[0] != wanted.channels:
        found, needed = _COLOURS[shape[0]], _COLOURS.get(wanted.channels, f"{wanted.channels} channels")
        raise DataError(
            f"expected {needed} images ({wanted.channels} channels), got {shape[0]} ({found}) in {name!r}; convert it"
        )
    if shape[1:] != (wanted.height, wanted.width):
        raise DataError(
            f"expected images of {wanted.width}x{wanted.height} pixels, got {shape[2]}x{shape[1]} in {name!r}; scale "
            "it as the training images were"
        )
