"""Which class, side (training or test) and group each file of an image folder belongs to."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from sharedlabel.data._source import Member, Source, readable
from sharedlabel.errors import DataError

# Compared with lower-cased names.
_TRAIN = {"train", "training"}
_TEST = {"test", "testing"}
_VALIDATION = {"dev", "val", "valid", "validation"}
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

    Without a test folder, a validation folder beside the training folder is the test set.

    Raises:
        DataError: no images, fewer than two classes, an empty class folder, images outside the class folders,
            training and test folders that do not hold the same classes, or folders that may be splits besides those.
    """
    members, folders = source.members(), [tuple(name.split("/")) for name in source.folders()]
    paths = [tuple(member.name.split("/")) for member in members]
    skip = _wrapper(paths, folders)
    paths, folders = [path[skip:] for path in paths], [folder[skip:] for folder in folders]
    sides = _sides(paths, folders, source.path)
    depth = 0 if sides is None else 1
    inside = [index for index, path in enumerate(paths) if len(path) > depth + 1]
    _check_outside([path for path in paths if len(path) <= depth + 1], depth, source.path)
    paths = [paths[index] for index in inside]
    names = _class_names(paths, folders, sides, source.path)
    index_of = {name: index for index, name in enumerate(names)}
    return Layout(
        members=tuple(members[index] for index in inside),
        class_names=names,
        labels=tuple(index_of[path[depth]] for path in paths),
        holdout=None if sides is None else tuple(path[0] == sides[1] for path in paths),
    )


def group_ids(source: Source, members: Sequence[Member], groups: str) -> tuple[int, ...]:
    """Return the group of each file, numbered in sorted order of their names.

    Args:
        source: the folder or zip.
        members: the files.
        groups: `level:K` for the K-th folder of the path, counted from 1, or the name of a CSV with the columns path
            and group, inside the source or beside it.

    Raises:
        DataError: no such level or CSV, unknown columns, a row without a group or in conflict with an earlier one, or
            a file that the CSV lacks.
    """
    names = [member.name for member in members]
    ids = _by_level(names, groups) if groups.startswith("level:") else _by_table(source, names, groups)
    index_of = {name: index for index, name in enumerate(sorted(set(ids)))}
    return tuple(index_of[name] for name in ids)


def _wrapper(paths: list[tuple[str, ...]], folders: list[tuple[str, ...]]) -> int:
    """Return 1 if one folder wraps everything, such as `cifar10/train/cat/1.png`, else 0."""
    tops = {path[0] for path in paths if len(path) > 1} | {folder[0] for folder in folders}
    deep = all(len(path) > 2 or Path(path[-1]).suffix.lower() not in _IMAGES for path in paths)
    return int(len(tops) == 1 and not _named(tops, _TRAIN | _TEST) and deep and any(len(path) > 2 for path in paths))


def _named(folders: Iterable[str], names: set[str]) -> list[str]:
    return sorted(folder for folder in folders if folder.lower() in names)


def _sides(paths: list[tuple[str, ...]], folders: list[tuple[str, ...]], where: Path) -> tuple[str, str] | None:
    """Return the training and the test folder, or None if the top folders are classes."""
    tops = {path[0] for path in paths if len(path) > 1} | {folder[0] for folder in folders if folder}
    train, test, validation = _named(tops, _TRAIN), _named(tops, _TEST), _named(tops, _VALIDATION)
    if test and validation:
        raise DataError(
            f"{where}: expected one train and one test folder, got also {', '.join(validation)}; merge it into the "
            "train folder or remove it, because validation is split from train by the configuration"
        )
    test = test or validation
    if train and test:
        if len(tops) > 2:
            others = ", ".join(sorted(tops - {train[0], test[0]}))
            raise DataError(
                f"{where}: expected one train and one test folder, got also {others}; move their images there"
            )
        return train[0], test[0]
    found, other = (train, "test") if train else (test, "train")
    if found and len(found) == len(tops):
        raise DataError(
            f"{where}: expected the folders train and test, got only {', '.join(map(repr, found))}; add {other!r}, or "
            f"give the path of {found[0]!r} itself to have it split"
        )
    _check_classes(paths, folders, where)
    return None


def _check_classes(paths: list[tuple[str, ...]], folders: list[tuple[str, ...]], where: Path) -> None:
    """Check that no top folder is a split under an unforeseen arrangement, which would pass for a class."""
    inside: dict[str, set[str]] = {}
    for folder in [*folders, *(path[:-1] for path in paths)]:
        if len(folder) > 1:
            inside.setdefault(folder[0], set()).add(folder[1])
    for split in _named(inside, _TRAIN | _TEST | _VALIDATION):
        for other in sorted(inside.keys() - {split}):
            if shared := inside[split] & inside[other]:
                raise DataError(
                    f"{where}: expected the folders train and test, or classes, got {split!r} and {other!r} that both "
                    f"hold {min(shared)!r}; name them train and test, or rename {split!r} if it is a class"
                )


def _check_outside(paths: list[tuple[str, ...]], depth: int, where: Path) -> None:
    # Tables and readme files may lie there; an image would be lost silently.
    for path in paths:
        if path and Path(path[-1]).suffix.lower() in _IMAGES:
            form = "split/class/file" if depth else "class/file"
            raise DataError(f"{where}: expected images as {form}, got {'/'.join(path)!r}; move it into a class folder")


def _class_names(
    paths: list[tuple[str, ...]], folders: list[tuple[str, ...]], sides: tuple[str, str] | None, where: Path
) -> tuple[str, ...]:
    """Return the sorted class names after checking that every class folder has images, on both sides."""
    depth = 0 if sides is None else 1
    filled = {path[: depth + 1] for path in paths}
    for folder in folders:
        if len(folder) == depth + 1 and folder not in filled:
            raise DataError(
                f"{where}: expected images in every class folder, got none in {'/'.join(folder)!r}; remove it"
            )
    names = sorted({key[-1] for key in filled})
    if sides is not None:
        _check_sides(filled, *sides, where)
    if len(names) < 2:
        found = f"{len(names)} ({', '.join(names)})" if names else "none"
        raise DataError(f"{where}: expected at least two class folders with images, got {found}; add another class")
    return tuple(names)


def _check_sides(filled: set[tuple[str, ...]], train: str, test: str, where: Path) -> None:
    trained = {name for side, name in filled if side == train}
    tested = {name for side, name in filled if side == test}
    for extra, has, lacks in ((tested - trained, test, train), (trained - tested, train, test)):
        if extra:
            raise DataError(
                f"{where}: expected every class in {train} and {test}, but {min(extra)!r} has no images in {lacks}, "
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
    table: dict[str, str] = {}
    for row in reader:
        path, group = row["path"], row["group"] or ""
        if not group.strip():
            raise DataError(
                f"expected a group in every row of {groups}, got none for {path!r} in row {reader.line_num}; "
                "fill it in or remove the row"
            )
        if table.setdefault(path, group) != group:
            raise DataError(
                f"expected one group for each path in {groups}, got {table[path]!r} and, in row {reader.line_num}, "
                f"{group!r} for {path!r}; remove one of the rows"
            )
    return table
