"""Files at a URL, such as s3://bucket/prefix: whatever fsspec can reach, by what it knows of credentials and endpoints.

Nothing is renamed. A file is written as a whole. One process alone creates a file where the service can refuse to
replace one, as S3 and its like do. Time is that of the service, which it states of a file that we have just written;
clocks of hosts are never compared.
"""

from __future__ import annotations

import contextlib
import errno
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import fsspec

from sharedlabel.errors import StoreError, WriteError, first_line
from sharedlabel.files import leases
from sharedlabel.files.patience import patiently

_CLOCK = "clock"  # the file that is written to be told the time
_TICK = 30.0  # seconds for which that is reckoned from
# Errors of libraries that are no OSError and will not pass: no key to enter with, a name that cannot be one.
_LASTING = re.compile("Credential|Validation|Profile|Region|Token|Auth|Config|Value|Type|Attribute|Import|Implemented")
_TOLD = (PermissionError, IsADirectoryError, NotADirectoryError, TimeoutError, ConnectionError)  # without a number
_Value = TypeVar("_Value")


class Remote:
    """A place at a URL.

    Args:
        url: with a protocol that fsspec knows.

    Raises:
        StoreError: it does not, or the package for it is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        try:
            self._files, base = fsspec.core.url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            extra = ' with `pip install "sharedlabel[s3]"`' if url.startswith("s3") else ""
            raise StoreError(
                f"expected a URL whose protocol fsspec can use here, got {url}: {first_line(error)}; install the "
                f"package for it{extra}, or give another URL or a folder"
            ) from error
        self._base = base.rstrip("/")
        self._answered = False  # a place that has never answered is not waited for: its name may be wrong
        self._time: tuple[float, float] | None = None  # of the place, and of our monotonic clock then

    def make(self, folder: str) -> None:
        """Do nothing: there are no folders."""

    def create(self, name: str, content: str) -> bool:
        """Make a file as one process alone can, where the service can refuse to replace a file."""

        def make() -> bool:
            try:
                self._files.pipe_file(self._path(name), content.encode(), mode="create")
            except FileExistsError:  # perhaps by us, when the answer was lost on its way
                with contextlib.suppress(FileNotFoundError):
                    return bool(self._files.cat_file(self._path(name), start=0) == content.encode())
                return False
            return True

        return self._patiently(make, f"write {name}")

    def read(self, name: str) -> str:
        """Return the content of a file."""
        content: bytes = self._patiently(lambda: self._files.cat_file(self._path(name), start=0), f"read {name}")
        return content.decode(errors="replace")

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

        def remove() -> None:
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))

        self._patiently(remove, f"remove {name}")

    def put(self, path: Path, name: str) -> None:
        """Write a file from one of this machine, whole or not at all."""
        self._patiently(lambda: self._files.put_file(str(path), self._path(name)), f"write {name}")

    def get(self, name: str, path: Path) -> None:
        """Read a file into one of this machine."""
        self._patiently(lambda: self._files.get_file(self._path(name), str(path)), f"read {name}")

    def get_all(self, paths: Mapping[str, Path]) -> None:
        """Read many files into some of this machine, at the same time where the service allows it."""
        names, there = [self._path(name) for name in paths], [str(path) for path in paths.values()]
        self._patiently(lambda: self._files.get(names, there), f"read {next(iter(paths), '')}")

    def sizes(self, folder: str) -> dict[str, int]:
        """Return the names of all files below a folder, from there on, with their bytes."""

        def look() -> dict[str, int]:
            begin = f"{self._path(folder)}/"
            listed = self._files.find(begin.rstrip("/"), detail=True)
            return {name[len(begin) :]: int(info["size"]) for name, info in listed.items() if name.startswith(begin)}

        return self._patiently(look, f"list {folder}")

    def expired(self, name: str, lease: float) -> bool:
        """Tell whether a file has not been written for so many seconds."""
        written = self._written(name)
        return self._now() - written > lease

    @contextlib.contextmanager
    def owner(self, folder: str) -> Iterator[str]:
        """Be an owner in the block, who writes a file every half minute."""
        for name in self.sizes(folder):
            with contextlib.suppress(FileNotFoundError):
                if self.expired(f"{folder}/{name}", leases.LEASE):
                    self.remove(f"{folder}/{name}")
        token, ended = uuid.uuid4().hex, threading.Event()
        path = self._path(f"{folder}/{token}")

        def beat() -> None:
            while not ended.wait(leases.HEARTBEAT):
                with contextlib.suppress(Exception):  # the next one may come through
                    self._files.pipe_file(path, token.encode())

        self._patiently(lambda: self._files.pipe_file(path, token.encode()), f"write {folder}")
        beating = threading.Thread(target=beat, name="lease", daemon=True)
        beating.start()
        try:
            yield token
        finally:
            ended.set()
            beating.join()
            self.remove(f"{folder}/{token}")

    def is_left(self, name: str, lease: float) -> bool:
        """Tell whether an owner is gone."""
        try:
            return self.expired(name, lease)
        except FileNotFoundError:
            return True

    def _now(self) -> float:
        """Return the time of the place, in seconds, from the last time that we were told it."""
        if self._time is None or time.monotonic() - self._time[1] > _TICK:
            self._patiently(lambda: self._files.pipe_file(self._path(_CLOCK), b"tick"), f"write {_CLOCK}")
            self._time = self._written(_CLOCK), time.monotonic()  # too early if at all, so that nobody is gone too soon
        told, then = self._time
        return told + time.monotonic() - then

    def _written(self, name: str) -> float:
        """Return when a file was written, by the clock of the place."""
        when: datetime = self._patiently(lambda: self._files.modified(self._path(name)), f"look at {name}")
        return when.timestamp()

    def _path(self, name: str) -> str:
        return f"{self._base}/{name}"

    def _patiently(self, action: Callable[[], _Value], what: str) -> _Value:
        """Do something, and again while it fails for a reason that may pass.

        Raises:
            WriteError: it fails; an OSError if the place has never answered before.
            FileNotFoundError: there is no such file.
        """

        def attempt() -> _Value:
            self._files.invalidate_cache()  # others write, too
            try:
                return action()
            except (FileNotFoundError, FileExistsError):
                self._answered = True
                raise
            except Exception as error:
                if isinstance(error, OSError) and (error.errno is not None or isinstance(error, _TOLD)):
                    raise
                number = errno.EINVAL if _LASTING.search(type(error).__name__) else errno.EIO
                raise OSError(number, f"{type(error).__name__}: {first_line(error)}") from error

        if not self._answered:
            value = attempt()
            self._answered = True
            return value
        try:
            return patiently(attempt, f"{what} at {self.url}")
        except FileNotFoundError:
            raise
        except OSError as error:
            raise WriteError(
                f"could not {what} at {self.url}: {error.strerror or first_line(error)}; nothing is lost, run the same "
                "command again when it answers and takes what is written"
            ) from error
