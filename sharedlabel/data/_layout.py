"""Which class, side (training or test) and group each file of an image folder belongs to."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sharedlabel.data._source import Member, Source, readable
from sharedlabel.errors import DataError

_TRAIN = {"train", "training"}
_TEST = {"test", "testing"}
_IMAGES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Layout:
    """The images of a folder or zip, sorted by name.

    Attributes:
        members: the files.
        class_names: sorted names of the class folders.
        labels: class index of each file.
        holdout: whether each file is in the test folder, or None without a split level.
    """

    members: tuple[Member, ...]
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    holdout: tuple[bool, ...] | None


def arrange(source: Source) -> Layout:
    """Read `split/class/file` or `class/file`, below at most one folder that wraps everything.

    Raises:
        DataError: no images, fewer than two classes, an empty class folder, images outside the class folders, or
            training and test folders that do not hold the same classes.
    """
    members, folders = source.members(), [tuple(name.split("/")) for name in source.folders()]
    paths = [tuple(member.name.split("/")) for member in members]
    skip = _wrapper(paths, folders)
    paths, folders = [path[skip:] for path in paths], [folder[skip:] for folder in folders]
    depth = _class_depth(paths, folders, source.path)
    inside = [index for index, path in enumerate(paths) if len(path) > depth + 1]
    _check_outside([path for path in paths if len(path) <= depth + 1], depth, source.path)
    paths = [paths[index] for index in inside]
    names = _class_names(paths, folders, depth, source.path)
    index_of = {name: index for index, name in enumerate(names)}
    return Layout(
        members=tuple(members[index] for index in inside),
        class_names=names,
        labels=tuple(index_of[path[depth]] for path in paths),
        holdout=tuple(path[0] in _TEST for path in paths) if depth else None,
    )


def group_ids(source: Source, members: Sequence[Member], groups: str) -> tuple[int, ...]:
    """Return the group of each file, numbered in sorted order of their names.

    Args:
        source: the folder or zip.
        members: the files.
        groups: `level:K` for the K-th folder of the path, counted from 1, or the name of a CSV with the columns path
            and group, inside the source or beside it.

    Raises:
        DataError: no such level or CSV, unknown columns, or a file that the CSV lacks.
    """
    names = [member.name for member in members]
    ids = _by_level(names, groups) if groups.startswith("level:") else _by_table(source, names, groups)
    index_of = {name: index for index, name in enumerate(sorted(set(ids)))}
    return tuple(index_of[name] for name in ids)


def _wrapper(paths: list[tuple[str, ...]], folders: list[tuple[str, ...]]) -> int:
    """Return 1 if one folder wraps everything, such as `cifar10/train/cat/1.png`, else 0."""
    tops = {path[0] for path in paths if len(path) > 1} | {folder[0] for folder in folders}
    deep = all(len(path) > 2 or Path(path[-1]).suffix.lower() not in _IMAGES for path in paths)
    return int(len(tops) == 1 and not tops & (_TRAIN | _TEST) and deep and any(len(path) > 2 for path in paths))


def _class_depth(paths: list[tuple[str, ...]], folders: list[tuple[str, ...]], where: Path) -> int:
    """Return how many folders come before the class: 1 with a split level, else 0."""
    tops = {path[0] for path in paths if len(path) > 1} | {folder[0] for folder in folders if folder}
    train, test = tops & _TRAIN, tops & _TEST
    if not (train and test):
        if tops and tops <= _TRAIN | _TEST:
            found, other = (*train, "test") if train else (*test, "train")
            raise DataError(
                f"{where}: expected the folders train and test, got only {found!r}; add {other!r}, or give the path of "
                f"{found!r} itself to have it split"
            )
        return 0
    if len(tops) > 2:
        others = ", ".join(sorted(tops - {min(train), min(test)}))
        raise DataError(f"{where}: expected one train and one test folder, got also {others}; move their images there")
    return 1


def _check_outside(paths: list[tuple[str, ...]], depth: int, where: Path) -> None:
    # Tables and readme files may lie there; an image would be lost silently.
    for path in paths:
        if path and Path(path[-1]).suffix.lower() in _IMAGES:
            form = "split/class/file" if depth else "class/file"
            raise DataError(f"{where}: expected images as {form}, got {'/'.join(path)!r}; move it into a class folder")


def _class_names(
    paths: list[tuple[str, ...]], folders: list[tuple[str, ...]], depth: int, where: Path
) -> tuple[str, ...]:
    """Return the sorted class names after checking that every class folder has images, on both sides."""
    filled = {path[: depth + 1] for path in paths}
    for folder in folders:
        if len(folder) == depth + 1 and folder not in filled:
            raise DataError(
                f"{where}: expected images in every class folder, got none in {'/'.join(folder)!r}; remove it"
            )
    names = sorted({key[-1] for key in filled})
    if depth:
        _check_sides(filled, where)
    if len(names) < 2:
        found = f"{len(names)} ({', '.join(names)})" if names else "none"
        raise DataError(f"{where}: expected at least two class folders with images, got {found}; add another class")
    return tuple(names)


def _check_sides(filled: set[tuple[str, ...]], where: Path) -> None:
    train = {name for side, name in filled if side in _TRAIN}
    test = {name for side, name in filled if side in _TEST}
    for extra, has, lacks in ((test - train, "test", "train"), (train - test, "train", "test")):
        if extra:
            raise DataError(
                f"{where}: expected every class in train and test, but {min(extra)!r} has no images in {lacks}, "
                f"only in {has} ({len(extra)} such classes); add some or remove it"
            )


def _by_level(names: list[str], groups: str) -> list[str]:
    text = groups.removeprefix("level:")
    level = int(text) if text.isdecimal() else 0
    shallow = min(names, key=lambda name: name.count("/"))
    deepest = shallow.count("/")
    if not 1 <= level <= deepest:
        raise DataError(
            f"expected groups: level:K with K from 1 to {deepest}, the folders of {shallow!r}, got {groups!r}; "
            "choose the folder that holds one group's images"
        )
    return [name.split("/")[level - 1] for name in names]


def _by_table(source: Source, names: list[str], groups: str) -> list[str]:
    table = _read_table(source, groups)
    lacking = [name for name in names if name not in table]
    if lacking:
        raise DataError(
            f"expected a group for every image in {groups}, got none for {lacking[0]!r} ({len(lacking)} images lack "
            f"one); add rows with paths relative to {source.path}"
        )
    return [table[name] for name in names]


def _read_table(source: Source, groups: str) -> dict[str, str]:
    beside = source.path.parent / groups
    if groups in {member.name for member in source.members()}:
        data = source.read(groups)
    elif beside.is_file():
        with readable(beside):
            data = beside.read_bytes()
    else:
        raise DataError(f"expected a table of groups {groups!r} inside {source.path} or at {beside}, got none; add it")
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig", errors="replace"), newline=""))
    columns = list(reader.fieldnames or [])
    if sorted(columns) != ["group", "path"]:
        raise DataError(
            f"expected the columns path, group in {groups}, got {', '.join(columns) or 'none'}; rename them"
        )
    return {row["path"]: row["group"] or "" for row in reader}
