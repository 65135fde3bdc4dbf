"""Which class, side (training, validation or test) and group each image of a folder or zip belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from sharedlabel.data._names import READ, is_image, kinds, unread
from sharedlabel.data._source import Source, read_plain
from sharedlabel.data._table import TABLE_BYTES, read_table
from sharedlabel.errors import DataError

# Compared with lower-cased names.
_TRAIN = {"train", "training"}
_TEST = {"test", "testing"}
_VALIDATION = {"dev", "val", "valid", "validation"}
Side: TypeAlias = Literal["train", "validation", "test"]
_Paths: TypeAlias = list[tuple[str, ...]]
_Placed: TypeAlias = tuple[str, float | None]  # a group, and the position in it


@dataclass(frozen=True)
class Layout:
    """The images of a folder or zip, sorted by name.

    Attributes:
        names: of the files, below the root.
        class_names: sorted names of the class folders.
        labels: class index of each file.
        sides: side of each file, or None without a split level.
        class_depth: which part of a name, counted from 0, is the class folder.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    labels: tuple[int, ...]
    sides: tuple[Side, ...] | None
    class_depth: int

    @property
    def wrapper(self) -> str:
        """The folder that wraps everything, with a slash, or nothing."""
        wraps = self.class_depth > (1 if self.sides else 0)
        return self.names[0].partition("/")[0] + "/" if wraps else ""


def arrange(source: Source) -> Layout:
    """Read `split/class/file` or `class/file`, below at most one folder that wraps everything.

    Without a test folder, a validation folder beside the training folder is the test set.

    Raises:
        DataError: no images, fewer than two classes, an empty class folder, images outside the class folders, sides
            that do not hold the same classes, or folders that may be splits besides those.
    """
    names = source.images()
    paths, empty = [tuple(name.split("/")) for name in names], _empty(source)
    if not paths:
        raise DataError(_no_images(source))
    skip = int(wrapped(paths, empty))
    paths, empty = [path[skip:] for path in paths], [folder[skip:] for folder in empty if len(folder) > skip]
    sides = _sides(paths, empty, source.path)
    depth = 1 if sides else 0
    _check_outside([path for path in paths if len(path) <= depth + 1], depth, source.path)
    class_names = _class_names(paths, empty, sides, source, skip)
    index_of = {name: index for index, name in enumerate(class_names)}
    return Layout(
        names=tuple(names),
        class_names=class_names,
        labels=tuple(index_of[path[depth]] for path in paths),
        sides=tuple(sides[path[0]] for path in paths) if sides else None,
        class_depth=skip + depth,
    )


def sides_of(layout: Layout) -> tuple[str, ...]:
    """Say which folder is the test set where its name says something else; nothing where it does not."""
    if layout.sides is None:
        return ()
    folders = {
        name.split("/")[layout.class_depth - 1]
        for name, side in zip(layout.names, layout.sides, strict=True)
        if side == "test"
    }
    return tuple(
        f"the folder {name!r} is the test set, since there is no other" for name in _named(folders, _VALIDATION)
    )


class Grouped(NamedTuple):
    """The group of each file, and where it stands in it.

    Attributes:
        names: of the groups.
        positions: such as numbers of frames; None where none are given, and files stand in the order of their names.
    """

    names: tuple[str, ...]
    positions: tuple[float, ...] | None = None


def grouped(source: Source, layout: Layout, groups: str, encoding: str) -> Grouped:
    """Return the group of each file.

    Args:
        source: the folder or zip.
        layout: of its images.
        groups: `level:K` for the K-th folder below the class folder, or the name of a CSV with the columns path and
            group, inside the source or beside it.
        encoding: of the CSV.

    Raises:
        DataError: no such level or CSV, unknown columns, a row without a group or in conflict with an earlier one, or
            a file that the CSV lacks.
    """
    if groups.startswith("level:"):
        return Grouped(tuple(_by_level(layout, groups)))
    return _by_table(source, layout, groups, encoding)


def wrapped(paths: _Paths, empty: _Paths = []) -> bool:  # noqa: B006 (read only)
    """Tell whether one folder wraps everything, such as `cifar10/train/cat/1.png`.

    Args:
        paths: parts of the images' names.
        empty: those of the folders that hold nothing.
    """
    tops = {path[0] for path in (*paths, *empty)}
    return len(tops) == 1 and not _named(tops, _TRAIN | _TEST) and all(len(path) > 2 for path in paths)


def _empty(source: Source) -> _Paths:
    """Return the folders that hold no file, not even one that is no image."""
    filled = set()
    for name in (*source.images(), *source.strays()):
        folder = name.rpartition("/")[0]
        while folder and folder not in filled:
            filled.add(folder)
            folder = folder.rpartition("/")[0]
    return [tuple(name.split("/")) for name in source.folders() if name not in filled]


def _no_images(source: Source) -> str:
    strays = source.strays()
    others = kinds(strays) if strays else "none"
    return (
        f"expected at least two class folders with images in {source.path} ({READ}), got {others}; convert them, or "
        "check the path"
    )


def _named(folders: Iterable[str], names: set[str]) -> list[str]:
    return sorted(folder for folder in folders if folder.lower() in names)


def _sides(paths: _Paths, empty: _Paths, where: Path) -> dict[str, Side] | None:
    """Return the side of each top folder, or None if the top folders are classes."""
    tops = {path[0] for path in paths if len(path) > 1} | {folder[0] for folder in empty}
    train, test, validation = _named(tops, _TRAIN), _named(tops, _TEST), _named(tops, _VALIDATION)
    held = {"train": train, "test": test or validation, "validation": validation if test else []}
    if train and held["test"]:
        sides: dict[str, Side] = {folders[0]: side for side, folders in held.items() if folders}  # type: ignore[misc]
        if others := sorted(tops - sides.keys()):
            raise DataError(
                f"{where}: expected one train, one test and at most one validation folder, got also "
                f"{', '.join(others)}; move their images there"
            )
        return sides
    alone, other = (train, "test") if train else (test or validation, "train")
    if alone and len(alone) == len(tops):
        raise DataError(
            f"{where}: expected the folders train and test, got only {', '.join(map(repr, alone))}; add {other!r}, or "
            f"give the path of {alone[0]!r} itself to have it split"
        )
    _check_classes(paths, where)
    return None


def _check_classes(paths: _Paths, where: Path) -> None:
    """Check that no top folder is a split under an unforeseen arrangement, which would pass for a class."""
    inside: dict[str, set[str]] = {}
    for path in paths:
        if len(path) > 2:
            inside.setdefault(path[0], set()).add(path[1])
    for split in _named(inside, _TRAIN | _TEST | _VALIDATION):
        for other in sorted(inside.keys() - {split}):
            if shared := inside[split] & inside[other]:
                raise DataError(
                    f"{where}: expected the folders train and test, or classes, got {split!r} and {other!r} that both "
                    f"hold {min(shared)!r}; name them train and test, or rename {split!r} if it is a class"
                )


def _check_outside(paths: _Paths, depth: int, where: Path) -> None:
    for path in paths:  # an image would be lost silently
        form = "split/class/file" if depth else "class/file"
        raise DataError(f"{where}: expected images as {form}, got {'/'.join(path)!r}; move it into a class folder")


def _class_names(
    paths: _Paths, empty: _Paths, sides: dict[str, Side] | None, source: Source, skip: int
) -> tuple[str, ...]:
    """Return the sorted class names after checking that every class folder has images, on every side."""
    depth, where = (1 if sides else 0), source.path
    filled = {path[: depth + 1] for path in paths}
    for folder in empty:
        if len(folder) == depth + 1 and folder not in filled:
            raise DataError(
                f"{where}: expected images in every class folder, got none in {'/'.join(folder)!r}; remove it"
            )
    for stray in unread(source.strays()):
        folder = tuple(stray.split("/")[skip:][: depth + 1])
        if len(folder) == depth + 1 and folder not in filled and not is_image(stray):
            raise DataError(
                f"{where}: expected images in every class folder ({READ}), got only others such as {stray!r}; convert "
                f"them, or remove {'/'.join(folder)!r}"
            )
    names = sorted({key[-1] for key in filled})
    for name in names:
        check_name(name, where, "class folder")
    if sides:
        _check_sides(filled, sides, where)
    if len(names) < 2:
        raise DataError(
            f"{where}: expected at least two class folders with images, got 1 ({names[0]}); add another class"
        )
    return tuple(names)


def check_name(name: str, where: Path, what: str) -> None:
    """Refuse a name that no report could show: control characters, or bytes that are no UTF-8.

    Raises:
        DataError: it is such a name.
    """
    if not name.isprintable():
        raise DataError(f"{where}: expected a {what} with a name of letters in UTF-8, got {name!a}; rename it")


def _check_sides(filled: set[tuple[str, ...]], sides: dict[str, Side], where: Path) -> None:
    held = {side: {name for folder, name in filled if folder == side} for side in sides}
    (train,) = (folder for folder, side in sides.items() if side == "train")
    for other in held.keys() - {train}:
        for extra, has, lacks in ((held[other] - held[train], other, train), (held[train] - held[other], train, other)):
            if extra:
                raise DataError(
                    f"{where}: expected every class in {' and '.join(sides)}, but {min(extra)!r} has no images in "
                    f"{lacks}, only in {has} ({len(extra)} such classes); add some or remove it"
                )


def _by_level(layout: Layout, groups: str) -> list[str]:
    text, base = groups.removeprefix("level:"), layout.class_depth
    level = int(text) if text.isdecimal() and len(text) < 9 else 0
    shallow = min(layout.names, key=lambda name: name.count("/"))
    deepest = shallow.count("/") - base - 1
    if not 1 <= level <= deepest:
        known = f"level:K with K from 1 to {deepest}" if deepest > 0 else "a CSV with the columns path and group"
        raise DataError(
            f"expected groups: {known}, since {shallow!r} has {max(deepest, 0)} folders below its class folder, got "
            f"{groups!r}; choose the folder that holds one group's images"
        )
    folders = ["/".join(name.split("/")[base : base + level + 1]) for name in layout.names]
    for folder in set(folders):
        check_name(folder, Path(groups), "group folder")
    return folders


def _by_table(source: Source, layout: Layout, groups: str, encoding: str) -> Grouped:
    table, numbers = dict[str, _Placed](), dict[str, int]()
    for number, group, path, position in read_table(_table(source, layout, groups), groups, encoding):
        first = table.setdefault(path, (group, position))
        if first != (group, position):
            what, before, after = ("group", first[0], group) if first[0] != group else ("position", first[1], position)
            raise DataError(
                f"expected one {what} for each path in {groups}, got {before!r} in row {numbers[path]} and, in row "
                f"{number}, {after!r} for {path!r}; remove one of the rows"
            )
        numbers.setdefault(path, number)
    wrapper = layout.wrapper
    listed = [_looked_up(table, name, wrapper) for name in layout.names]
    lacking = [name for name, group in zip(layout.names, listed, strict=True) if group is None]
    if lacking:
        raise DataError(
            f"expected a group for every image in {groups}, got none for {lacking[0]!r} ({len(lacking)} images lack "
            f"one), but paths such as {next(iter(table), '')!r}; write paths relative to {source.path}"
        )
    found = [one for one in listed if one is not None]
    names, positions = tuple(group for group, _ in found), [position for _, position in found]
    told = tuple(position for position in positions if position is not None)
    if len(told) < len(positions):  # the table has no such column
        return Grouped(names)
    return Grouped(names, told)


def _looked_up(table: Mapping[str, _Placed], name: str, wrapper: str) -> _Placed | None:
    """Return what is said of a file, whose path may leave out the folder that wraps everything, or have backslashes."""
    below = name.removeprefix(wrapper)
    tried = (name, below, name.replace("/", "\\"), below.replace("/", "\\"))
    return next((table[path] for path in tried if path in table), None)


def _table(source: Source, layout: Layout, groups: str) -> bytes:
    for name in (groups, layout.wrapper + groups):
        if name in source.strays():
            return source.read(name, TABLE_BYTES)
    beside = source.path.parent / groups
    if beside.is_file():
        return read_plain(beside, TABLE_BYTES)
    raise DataError(f"expected a table of groups {groups!r} inside {source.path} or at {beside}, got none; add it")


def strays_of(names: Sequence[str]) -> tuple[str, ...]:
    """Say in one sentence what was left out because it is no image by its name; nothing if there was nothing."""
    if not names:
        return ()
    if len(names) == 1:
        return (f"left out a file that is no image by its name: {names[0]!r}",)
    return (f"left out {len(names):,} files that are no images by their names: {kinds(names)}",)
