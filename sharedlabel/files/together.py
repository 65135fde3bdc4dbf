"""Files that belong together are replaced together, or not at all.

All content is on disk before the first name changes: it is written to a folder, which is then renamed to `.replacing`.
From then on the new set counts. Its files are moved to their places one by one, which needs no space; a process that
dies in between leaves `.replacing`, where `read` finds the new files, and the next write moves the rest.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sharedlabel.errors import WriteError
from sharedlabel.files import leases
from sharedlabel.files.plain import read_file, read_json

REPLACING = ".replacing"
LIST = ".files.json"  # names of the files that were written here, so that no other is ever removed
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*")
_AS_IT_WAS = "what was there before is as it was"
_WAITS = f"the new files lie in {REPLACING} beside it until they can be moved"


def replace(
    folder: Path,
    files: Mapping[str, str | bytes],
    obsolete: Callable[[str], bool] | None = None,
    made_of: str = "",
) -> None:
    """Write files into a folder in the place of those written before; after a failure these are as they were.

    Args:
        folder: made if absent.
        files: content by name, in sub-folders one level down at most.
        obsolete: tells which of the files written here before are removed if they are not among the new ones; none if
            left out.
        made_of: a digest of what the files follow from, by which `holds` knows them again.

    Raises:
        WriteError: a file cannot be written; the message names it.
    """
    with contextlib.ExitStack() as stack:
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            leases.sweep(folder, leases.MARK)
            made = stack.enter_context(leases.claimed(folder, leases.MARK)) / "made"
        for name, content in files.items():
            _write(folder, made, name, content)
        stack.enter_context(_alone(folder))
        finish(folder)
        _check(folder, files)
        if obsolete is not None:
            former = set(_names(folder / LIST, "files"))
            gone = set(filter(obsolete, former - files.keys()))
            listed: dict[str, Any] = {"files": sorted(former - gone | files.keys()), "gone": sorted(gone)}
            if made_of:
                listed |= {"made_of": made_of, "contents": {name: _digest(files[name]) for name in files}}
            _write(folder, made, LIST, json.dumps(listed))
        with _writing(folder):
            for parent in sorted({made} | {(made / name).parent for name in files}):
                flush(parent)
            made.rename(folder / REPLACING)
        finish(folder)


def finish(folder: Path) -> None:
    """Move what a process that died has left to be moved.

    Raises:
        WriteError: a file cannot be moved; it stays to be moved.
    """
    waiting = folder / REPLACING
    if waiting.is_symlink() or not waiting.is_dir():
        return
    for name in _names(waiting / LIST, "gone"):
        with _writing(folder / name, _WAITS):
            _check_place(folder / name, folder)
            (folder / name).unlink(missing_ok=True)
    for name in [*filter(_NAME.fullmatch, _plain_files(waiting)), LIST]:
        with _writing(folder / name, _WAITS):
            _check_place(folder / name, folder)
            (folder / name).parent.mkdir(exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # it was moved by another process
                (waiting / name).rename(folder / name)
    with _writing(folder, _WAITS):
        flush(folder)
    for path in (*sorted(waiting.rglob("*"), reverse=True), waiting):
        with contextlib.suppress(OSError):  # never what another process has put there meanwhile
            path.rmdir()


def holds(folder: Path, made_of: str) -> bool:
    """Tell whether the files that were last written to a folder follow from the same, and are as they were written."""
    try:
        listed = _listed(folder)
        return listed["made_of"] == made_of and all(
            _digest(read_file(folder / name)) == digest for name, digest in listed["contents"].items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def contents(folder: Path) -> list[str]:
    """Return the names of the files that `holds` is true of, in the order in which they were given."""
    return list(_listed(folder)["contents"])


def _listed(folder: Path) -> Any:
    if (folder / REPLACING).exists():  # some of the files have yet to be moved to their places
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(folder / REPLACING))
    listed = read_json(read_file(folder / LIST))
    if not all(map(_NAME.fullmatch, listed["contents"])):
        raise ValueError(f"{LIST} with a name that leads elsewhere")
    return listed


def _digest(content: str | bytes) -> str:
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def read(folder: Path, name: str) -> bytes:
    """Return the content of a file, from its place or from where it waits to be moved there.

    Raises:
        OSError: it cannot be read.
    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return read_file(folder / REPLACING / name)
    return read_file(folder / name)


def replace_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder in the place of another, whole or not at all.

    Args:
        folder: to be made, or replaced with all that is in it.
        fill: writes the content into the folder that it is given, which becomes this one.

    Raises:
        OSError: it cannot be written; the former one is there as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    leases.sweep(folder.parent, leases.MARK)
    restore(folder)
    former = _former(folder)
    with leases.claimed(folder.parent, leases.MARK) as claim:
        made = claim / "made"
        made.mkdir()
        fill(made)
        for path in (*made.rglob("*"), made):
            flush(path)
        try:
            if folder.exists():
                folder.rename(former)
            made.rename(folder)
        finally:
            restore(folder)
    flush(folder.parent)


def restore(folder: Path) -> None:
    """End a replacement between its two renames: remove the former folder if the new one is there, else put it back."""
    former = _former(folder)
    if former.is_symlink() and folder.exists():
        former.unlink()
    elif former.exists() and folder.exists():
        shutil.rmtree(former, ignore_errors=True)
    elif former.exists():
        former.rename(folder)


def flush(path: Path) -> None:
    """Force a file or folder to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _former(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.former")


def _write(folder: Path, made: Path, name: str, content: str | bytes) -> None:
    with _writing(folder / name):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        with (made / name).open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())


def _check(folder: Path, names: Collection[str]) -> None:
    """Refuse places that cannot be taken before the first one is.

    Raises:
        WriteError: a folder lies where a file should, or a sub-folder cannot be made or written.
    """
    for place in sorted(folder / name for name in names):
        with _writing(place):
            _check_place(place, folder)
            place.parent.mkdir(exist_ok=True)
            if place.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not os.access(place.parent, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def _check_place(place: Path, folder: Path) -> None:
    """Refuse a place that leads out of the folder, and what is no file: who sends a folder may have put it there.

    Raises:
        OSError: it is a link or a device, or lies in a link.
    """
    if place.parent != folder and place.parent.is_symlink():
        raise OSError(errno.ELOOP, f"{place.parent.name} is a link")
    if place.is_symlink() or (place.exists() and not (place.is_file() or place.is_dir())):
        raise OSError(errno.EEXIST, "there is a link, pipe or device")


def _plain_files(folder: Path) -> list[str]:
    """List the plain files of a folder and of its sub-folders, links not followed."""
    inside = sorted(folder.iterdir())
    inside += [path for one in inside if stat.S_ISDIR(one.lstat().st_mode) for path in sorted(one.iterdir())]
    return [path.relative_to(folder).as_posix() for path in inside if stat.S_ISREG(path.lstat().st_mode)]


def _names(path: Path, key: str) -> list[str]:
    """Read names from a list of files; none where it cannot be read, and none that leads elsewhere."""
    try:
        return [name for name in read_json(read_file(path))[key] if _NAME.fullmatch(name)]
    except (OSError, ValueError, KeyError, TypeError):
        return []


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from moving files meanwhile, where the file system has locks."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _writing(path: Path, left: str = _AS_IT_WAS) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WriteError(
            f"expected to write {path}, got: {error.strerror or error}; {left}; free some space, fix the permissions "
            "or choose another folder, and run the same command again"
        ) from error
