"""Tuples of image files: a folder or zip of sub-folders, or a CSV of groups, read as data sets of images are."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from sharedlabel.data._decode import decode_named
from sharedlabel.data._layout import strays_of, wrapped
from sharedlabel.data._source import BadFileError, Source, read_plain
from sharedlabel.data._table import TABLE_BYTES, read_table
from sharedlabel.decoding import Decoding
from sharedlabel.deployment.card import Preprocessing
from sharedlabel.errors import DataError

_COLOURS = {1: "grey", 3: "colour"}


@dataclass(frozen=True)
class Group:
    """Image files that show the same thing.

    Attributes:
        name: of the sub-folder or the group.
        paths: of the files below the source, in the order in which they are looked at: by position in a CSV that has
            such a column, else sorted.
        read: returns the bytes of one of them.
        flaw: why the group cannot be used; empty if it can.
    """

    name: str
    paths: tuple[str, ...]
    read: Callable[[str], bytes]
    flaw: str = ""


@dataclass(frozen=True)
class Groups:
    """What there is to predict.

    Attributes:
        groups: the tuples, sorted by name.
        remarks: what was left out, a sentence each.
    """

    groups: tuple[Group, ...]
    remarks: tuple[str, ...] = ()


def read_groups(source: Path, encoding: str = "utf-8") -> Groups:
    """List the tuples of a folder or zip with one sub-folder each, or of a CSV with the columns group and path.

    Groups and files are sorted by name, the files of a CSV with a column position by that. Paths in a CSV are relative
    to its folder, and inside it. Hidden files and those that are no images by their names are left out.

    Args:
        source: the folder, zip or CSV.
        encoding: of the CSV's text.

    Raises:
        DataError: no tuples, files where none belong, or a CSV that is none.
    """
    if source.is_file() and source.suffix.lower() != ".zip":
        return _from_table(source, encoding)
    if not source.exists():
        raise DataError(
            f"expected a folder or zip of tuples (one sub-folder each) or a CSV with the columns group and path at "
            f"{source}, got nothing; check the path"
        )
    return _from_folders(Source(source))  # open as long as its groups are read


def read_images(
    group: Group, wanted: Preprocessing, skipped: list[str] | None = None
) -> Iterator[UInt8[Tensor, "C H W"]]:
    """Decode a tuple's files one at a time, as the images that the model was trained on were decoded.

    Args:
        group: the tuple.
        wanted: what the model takes.
        skipped: receives why a file cannot be read as an image, which is then left out; None: that is an error.

    Raises:
        DataError: the model takes no image files, the group has a flaw, or a file cannot be read, is no image or does
            not fit.
    """
    check_model(wanted)
    if group.flaw:
        raise DataError(group.flaw)
    decoding = Decoding(wanted.resize, wanted.convert, wanted.background, wanted.trim)
    used = 0
    for path in group.paths:
        try:
            pixels = decode_named(path, group.read(path), decoding)
        except BadFileError as error:
            if skipped is None:
                raise
            skipped.append(str(error))
            continue
        _check(pixels.shape, path, wanted)
        used += 1
        yield torch.from_numpy(pixels.copy())
    if not used:
        raise DataError(f"expected images that can be read in {group.name!r}, got none; repair them or remove it")


def check_model(wanted: Preprocessing) -> None:
    """Refuse a model that takes no image files.

    Raises:
        DataError: it is one.
    """
    if wanted.dtype != "uint8":
        raise DataError(
            f"expected a model of images, got one of {wanted.dtype} instances, which no image file holds; "
            "use sharedlabel.deployment.predictor on tensors"
        )


def _from_folders(source: Source) -> Groups:
    names, remarks = source.images(), strays_of(source.strays())
    skip = int(bool(names) and wrapped([tuple(name.split("/")) for name in names]))
    inside: dict[str, list[str]] = {}
    for name in names:
        folder, *rest = name.split("/")[skip:]
        if not rest:
            raise DataError(
                f"expected only sub-folders in {source.path}, one per tuple, got the file {name!r}; put images that "
                "show the same thing into a sub-folder of their own"
            )
        inside.setdefault(folder, []).append(name)
    for folder in source.folders():
        parts = folder.split("/")[skip:]
        if len(parts) == 1:
            inside.setdefault(parts[0], [])
    if not inside:
        raise DataError(f"expected sub-folders with images in {source.path}, one per tuple, got none; add one")
    return Groups(tuple(_group(source, name, inside[name], skip) for name in sorted(inside)), remarks)


def _group(source: Source, name: str, files: list[str], skip: int) -> Group:
    flaw = ""
    deep = next((file.split("/")[skip:] for file in files if file.count("/") > skip + 1), None)
    if not name.isprintable():
        flaw = f"expected a sub-folder with a name of letters in UTF-8, got {name!a}; rename it"
    elif not files:
        flaw = f"expected images in every sub-folder, got none in {name!r}; add some or remove it"
    elif deep is not None:
        flaw = f"expected images in {name!r}, got the folder {deep[1]!r}; move its images up"
    return Group(name, tuple(files), source.read, flaw)


def _from_table(table: Path, encoding: str) -> Groups:
    folder, paths = table.parent, dict[str, dict[str, float]]()
    source, flaws, placed = Source(folder), dict[str, str](), dict[tuple[str, float], str]()
    for number, group, path, position in read_table(read_plain(table, TABLE_BYTES), str(table), encoding):
        inside = _below(folder, path)
        if inside is None:
            flaws[group] = (
                f"expected images inside {folder.absolute()}, got {path!r} (row {number} of {table}); move the CSV to "
                "a folder that holds them"
            )
        elif not os.path.lexists(folder / inside):
            flaws[group] = f"expected an image at {inside!r} (row {number} of {table}), got no file; correct the path"
        own = paths.setdefault(group, {})
        if inside is None:
            continue
        if own.setdefault(inside, position or 0.0) != (position or 0.0):
            flaws[group] = (
                f"expected one position of {inside!r}, got {own[inside]:g} and {position:g} (row {number} of {table}); "
                "remove one of the rows"
            )
        twin = inside if position is None else placed.setdefault((group, position), inside)
        if twin != inside:
            flaws[group] = (
                f"expected positions that differ, got {position:g} for both {twin!r} and {inside!r} (row {number} of "
                f"{table}); correct one of them"
            )
    if not paths:
        raise DataError(f"expected rows with a group and a path in {table}, got none; add some")
    ordered = {name: sorted(own, key=lambda path: (own[path], path)) for name, own in paths.items()}
    return Groups(
        tuple(Group(name, tuple(ordered[name]), source.read, flaws.get(name, "")) for name in sorted(ordered))
    )


def _below(folder: Path, path: str) -> str | None:
    """Return a path relative to a folder, or None if it leads out of it."""
    tried = path if os.path.lexists(folder / path) else path.replace("\\", "/")
    below = os.path.relpath(os.path.join(os.path.abspath(folder), tried), os.path.abspath(folder))
    return None if below.split(os.sep)[0] == ".." else below.replace(os.sep, "/")


def _check(shape: tuple[int, ...], name: str, wanted: Preprocessing) -> None:
    if shape[0] != wanted.channels:
        colour, needed = _COLOURS[shape[0]], _COLOURS.get(wanted.channels, f"{wanted.channels} channels")
        raise DataError(
            f"expected {needed} images ({wanted.channels} channels), got {shape[0]} ({colour}) in {name!r}; convert it"
        )
    if shape[1:] != (wanted.height, wanted.width):
        raise DataError(
            f"expected images of {wanted.width}x{wanted.height} pixels, got {shape[2]}x{shape[1]} in {name!r}; scale "
            "it as the training images were"
        )
