"""Files of a folder or of a zip, behind one face."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from sharedlabel.errors import DataError

_SYSTEM_FILES = {"Thumbs.db", "desktop.ini"}


@dataclass(frozen=True, order=True)
class Member:
    """A file: its path below the root with forward slashes, and what identifies its content.

    Attributes:
        name: path below the root.
        crc: CRC-32 of the bytes.
        size: bytes.
    """

    name: str
    crc: int
    size: int


class Source:
    """A folder or zip opened for reading; use it as a context manager.

    Args:
        path: the folder or the zip.

    Raises:
        DataError: there is neither, or it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._members: list[Member] | None = None
        with readable(path):
            if not path.exists():
                raise DataError(f"expected a folder or a zip of images at {path.absolute()}, got nothing; check `path`")
            if not path.is_dir():
                self._zip = _open_zip(path)

    def __enter__(self) -> Source:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._zip is not None:
            self._zip.close()

    def members(self) -> list[Member]:
        """List the visible files, sorted by name."""
        if self._members is None:
            with readable(self.path):
                found = self._files_in_folder() if self._zip is None else _files_in_zip(self._zip)
                self._members = sorted(member for member in found if visible(member.name))
        return self._members

    def folders(self) -> list[str]:
        """List the visible folders, sorted; a zip names some or all of those that hold nothing."""
        with readable(self.path):
            if self._zip is None:
                found = [self._relative(folder) for folder, _, _ in _walk(self.path) if Path(folder) != self.path]
            else:
                found = [info.filename.rstrip("/") for info in self._zip.infolist() if info.is_dir()]
            return sorted(name for name in found if visible(name))

    def read(self, name: str) -> bytes:
        """Read a file.

        Raises:
            DataError: it cannot be read, or a zip's checksum does not fit.
        """
        try:
            return (self.path / name).read_bytes() if self._zip is None else self._zip.read(name)
        except (OSError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise DataError(
                f"expected to read {name!r} in {self.path}, got: {error}; restore the file, or fetch the zip again"
            ) from error

    def _files_in_folder(self) -> Iterator[Member]:
        for folder, _, files in _walk(self.path):
            for file in files:
                name = self._relative(os.path.join(folder, file))
                if visible(name):
                    data = self.read(name)
                    yield Member(name, zlib.crc32(data), len(data))

    def _relative(self, path: str) -> str:
        return Path(path).relative_to(self.path).as_posix()


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


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"expected a folder or a zip of images at {path}, got a file that is not a zip ({error}); "
            "fetch it again or unpack it and give the folder"
        ) from error


def _files_in_zip(archive: zipfile.ZipFile) -> Iterator[Member]:
    # A later entry of the same name replaces the earlier one, as in every unpacker.
    infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
    return (Member(name, info.CRC, info.file_size) for name, info in infos.items())


def _walk(path: Path) -> Iterator[tuple[str, list[str], list[str]]]:
    def fail(error: OSError) -> None:
        raise error

    return os.walk(path, onerror=fail, followlinks=True)


def visible(name: str) -> bool:
    """Tell whether a relative path is none of the files that systems leave behind, and none that is hidden."""
    parts = name.split("/")
    return parts[-1] not in _SYSTEM_FILES and not any(part.startswith(".") or part == "__MACOSX" for part in parts)
