"""The images of a folder or of a zip, behind one face: what is listed, and how a file is read.

Nothing is opened that is not a plain file inside the folder, nothing is read beyond a bound, and no name leads out.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
import struct
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeAlias

from sharedlabel.data._names import hidden, is_image
from sharedlabel.errors import DataError

FILE_BYTES = 640 << 20  # an image of the most pixels that are decoded, three bytes each, uncompressed
Identity: TypeAlias = tuple[int, int]  # CRC-32 and length
UNREADABLE: Identity = (0, -1)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others are inflated without a bound
_FLAG_ENCRYPTED = 1
_BAD_ZIP = (zipfile.BadZipFile, ValueError, NotImplementedError, struct.error, ArithmeticError, EOFError, LookupError)
_BAD_MEMBER = (*_BAD_ZIP, RuntimeError, zlib.error, OSError)
# Never wait at a pipe or a device that has taken a file's place since it was listed.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class BadFileError(DataError):
    """One file that cannot be used, though others can."""


class Stamp(NamedTuple):
    """By what it is seen that a file has changed.

    Attributes:
        text: its size and times.
        latest: the time of its last change, nanoseconds since 1970.
    """

    text: str
    latest: int


class _Listed(NamedTuple):
    """What a folder or zip holds, by paths below the root with forward slashes."""

    images: list[str]
    strays: list[str]
    folders: list[str]


class Source:
    """A folder or zip opened for reading; use it as a context manager.

    Args:
        path: the folder or the zip.

    Attributes:
        place: the same without links.

    Raises:
        DataError: there is neither, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._alone = threading.Lock()  # a zip counts its readers, without a lock of its own
        self._infos: dict[str, zipfile.ZipInfo] = {}
        self._places: dict[str, str] = {}  # of the images of a folder, links followed
        self._names: _Listed | None = None
        with readable(path):
            if not path.exists():
                raise DataError(f"expected a folder or a zip of images at {path.absolute()}, got nothing; check `path`")
            if not path.is_dir():
                _check_plain(path.stat().st_mode, str(path))
                self._zip = _open_zip(path)
                self._infos = _infos(self._zip, path)
            self.place = os.path.realpath(path)
            self._stamp = _stamped(os.stat(self.place))

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()

    def __reduce__(self) -> tuple[type[Source], tuple[Path]]:
        """Return how another process opens it."""
        return Source, (self.path.absolute(),)

    def images(self) -> list[str]:
        """List the visible files that are images by their names, sorted."""
        return self._listed().images

    def strays(self) -> list[str]:
        """List the visible files that are no images by their names, sorted."""
        return self._listed().strays

    def folders(self) -> list[str]:
        """List the visible folders, sorted; a zip names some or all of those that hold nothing."""
        return self._listed().folders

    def read(self, name: str, limit: int = FILE_BYTES) -> bytes:
        """Read a file.

        Args:
            name: path below the root.
            limit: bytes that it may have.

        Raises:
            BadFileError: it cannot be read, is longer, or a zip's checksum does not fit.
            DataError: it is no plain file, or lies outside.
        """
        try:
            data = self._file(name, limit) if self._zip is None else self._member(self._zip, name, limit)
        except _BAD_MEMBER as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise BadFileError(
                f"expected to read {name!r} in {self.path.name}, got: {reason}; restore the file, or fetch the zip "
                "again"
            ) from error
        if len(data) > limit:
            raise BadFileError(_too_long(name, self.path, limit))
        return data

    def identity(self, name: str) -> Identity:
        """Return the CRC-32 and the length of a file's bytes, or `UNREADABLE` for one that cannot be read.

        Those of a zip's member are its directory's.
        """
        stated = self.stated(name)
        if stated is not None:
            return stated
        try:
            data = self.read(name)
        except BadFileError:  # whoever decodes it says so
            return UNREADABLE
        return zlib.crc32(data), len(data)

    def stated(self, name: str) -> Identity | None:
        """Return the identity of a zip's member, which its directory states; None in a folder, where files are read."""
        return None if self._zip is None else (self._infos[name].CRC, self._infos[name].file_size)

    def stamp(self, name: str) -> Stamp:
        """Return the size and the times of a file, or of the zip that it is in: they change when it does."""
        if self._zip is not None:
            return self._stamp
        try:
            return _stamped(os.stat(self._places.get(name) or os.path.join(self.place, name)))
        except OSError:  # whoever reads it says so
            return Stamp("", 0)

    def _listed(self) -> _Listed:
        if self._names is None:
            with readable(self.path):
                names = self._walk() if self._zip is None else self._of_zip()
                self._names = _Listed(*map(sorted, names))
        return self._names

    def _of_zip(self) -> _Listed:
        assert self._zip is not None
        folders = [_inside(info.filename, self.path) for info in self._zip.infolist() if info.is_dir()]
        visible = [name for name in self._infos if not hidden(name)]
        images = [name for name in visible if is_image(name)]
        for name in images:
            _check_member(self._infos[name], name, self.path)
        strays = [name for name in visible if not is_image(name)]
        return _Listed(images, strays, [name for name in folders if name != "." and not hidden(name)])

    def _walk(self) -> _Listed:
        listed = _Listed([], [], [])
        left = [(self.place, "")]  # folders, and what the names of their files begin with
        seen: dict[tuple[int, int], str] = {}  # a link may lead back to a folder, and many links to many of them
        while left:
            folder, prefix = left.pop()
            status = os.stat(folder)
            former = seen.setdefault((status.st_dev, status.st_ino), prefix)
            if former != prefix:
                both = f"{former or '.'!r} and {prefix!r}"
                raise DataError(
                    f"expected every folder once in {self.path}, got a link that makes {both} one; remove it"
                )
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = prefix + entry.name
                    if entry.name.startswith(".") or entry.name == "__MACOSX":
                        continue
                    place = self._target(entry, name) if entry.is_symlink() else entry.path
                    if place is None:
                        listed.strays.append(name)
                    elif entry.is_dir():
                        listed.folders.append(name)
                        left.append((place, f"{name}/"))
                    elif not is_image(name):
                        listed.strays.append(name)
                    else:
                        if not entry.is_file(follow_symlinks=False):
                            _check_plain(os.stat(place).st_mode, os.path.join(self.path, name))
                        listed.images.append(name)
                        self._places[name] = place
        return listed

    def _target(self, entry: os.DirEntry[str], name: str) -> str | None:
        """Return where a link leads, or None for one that nothing would be read from."""
        place = os.path.realpath(entry.path)
        if not (os.path.isdir(entry.path) or is_image(name)):  # an entry would raise if links go round in circles
            return None
        self._check_inside(place, name)
        if not os.path.exists(place):
            raise DataError(f"expected an image at {name!r} in {self.path}, got a link to nothing; remove it")
        return place

    def _check_inside(self, place: str, name: str) -> None:
        if os.path.commonpath([place, self.place]) != self.place:
            raise DataError(
                f"expected files inside {self.path}, got {name!r}, which leads to {place}; copy it there, or "
                "give the folder that it leads to"
            )

    def _file(self, name: str, limit: int) -> bytes:
        place = self._places.get(name)
        if place is None:
            place = os.path.realpath(os.path.join(self.place, name))
            self._check_inside(place, name)
        return _read(place, limit)

    def _member(self, archive: zipfile.ZipFile, name: str, limit: int) -> bytes:
        info = self._infos[name]
        _check_member(info, name, self.path)
        if info.file_size > limit:  # before it is inflated
            raise BadFileError(_too_long(name, self.path, limit, info.file_size))
        with self._alone, archive.open(info) as file:
            return file.read(limit + 1)


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn failures of the file system inside the block into a `DataError` that names the path."""
    try:
        yield
    except PermissionError as error:
        raise DataError(
            f"expected to read {error.filename or path}, got: permission denied; give this user the right to read it"
        ) from error
    except OSError as error:
        raise DataError(f"expected to read {path}, got: {error}; check the path and the disk") from error
    except ValueError as error:  # of the system's calls: a name that no file can have
        raise DataError(f"expected to read {path}, got: {error}; check the path") from error


def read_plain(path: Path, limit: int) -> bytes:
    """Read a file that is no pipe or device, and no longer than a bound.

    Raises:
        DataError: it is none, is longer or cannot be read.
    """
    with readable(path):
        data = _read(os.path.realpath(path), limit)
    if len(data) > limit:
        raise DataError(_too_long(path.name, path.parent, limit))
    return data


def _stamped(status: os.stat_result) -> Stamp:
    # The time of the last change, too, which nobody can set: unpackers give files the times that they had elsewhere.
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    return Stamp(f"{status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}", latest)


def _read(place: str, limit: int) -> bytes:
    """Read a plain file; of one that is longer than the limit only its beginning, longer than the limit, too."""
    handle = os.open(place, _FLAGS)
    try:
        status = os.fstat(handle)
        _check_plain(status.st_mode, place)
        data = part = os.read(handle, min(status.st_size, limit) + 1)
        while part and len(data) <= limit:  # until the end, which is one read of nothing
            part = os.read(handle, 1 << 16)
            data += part
        return data
    finally:
        os.close(handle)


def _check_plain(mode: int, name: str) -> None:
    if not stat.S_ISREG(mode):
        kinds = ((stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))
        kind = next((words for test, words in kinds if test(mode)), "a device")
        raise DataError(f"expected a plain file at {name!r}, got {kind}; leave it out, or put a file there")


def _too_long(name: str, where: Path, limit: int, length: int | None = None) -> str:
    size = "more" if length is None else f"{length:,}"
    return f"expected at most {limit:,} bytes in {name!r} of {where.name}, got {size}; remove it, or make it smaller"


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except _BAD_ZIP as error:
        raise DataError(
            f"expected a folder or a zip of images at {path}, got a file that is not a zip ({error}); "
            "fetch it again or unpack it and give the folder"
        ) from error


def _infos(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    # A later entry of the same name replaces the earlier one, as in every unpacker.
    return {_inside(info.filename, path): info for info in archive.infolist() if not info.is_dir()}


def _inside(name: str, path: Path) -> str:
    """Return the name of a zip's member with forward slashes, which some Windows programs do not write.

    Raises:
        DataError: it would lead out of the folder that it is unpacked to.
    """
    slashed = name if "/" in name.rstrip("/") else name.replace("\\", "/")
    if slashed.startswith("/") or re.match(r"[A-Za-z]:/", slashed) or ".." in slashed.split("/"):
        raise DataError(
            f"expected names of files inside the zip {path}, got {name!r}; pack it again without such names"
        )
    return posixpath.normpath(slashed)


def _check_member(info: zipfile.ZipInfo, name: str, path: Path) -> None:
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode not in (0, stat.S_IFREG):
        raise DataError(
            f"expected plain files in the zip {path}, got {name!r}, a link or a device; pack the file itself"
        )
    if info.flag_bits & _FLAG_ENCRYPTED:
        raise DataError(f"expected a zip without a password at {path}, got {name!r} with one; pack it without")
    if info.compress_type not in _METHODS:
        raise DataError(
            f"expected a zip that is stored or compressed by deflate at {path}, got {name!r} compressed by "
            f"method {info.compress_type}; pack it again"
        )
