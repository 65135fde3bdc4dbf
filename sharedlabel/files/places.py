"""Where runs that share work keep files: a folder here, a URL in `remote`."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol, TextIO, TypeVar, runtime_checkable

from sharedlabel.files import leases
from sharedlabel.files.patience import patiently

_Value = TypeVar("_Value")


@runtime_checkable
class Place(Protocol):
    """Files by names such as `claims/dense`, which any number of processes and machines see alike.

    What may pass, such as a full disk or a server that does not answer, is waited for.
    """

    def make(self, folder: str) -> None:
        """Make a folder, where there are such."""

    def create(self, name: str, content: str) -> bool:
        """Make a file as one process alone can; False if somebody has made one.

        Args:
            name: of the file.
            content: like none that others write under this name, so that one's own is known when an answer was lost.
        """

    def read(self, name: str) -> str:
        """Return the content of a file; raises FileNotFoundError where there is none."""

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""

    def expired(self, name: str, lease: float) -> bool:
        """Tell whether a file has not been written for so many seconds, by the clock of the place."""

    def owner(self, folder: str) -> AbstractContextManager[str]:
        """Be an owner in the block, known by a name in a folder; what dead ones have left there is removed."""

    def is_left(self, name: str, lease: float) -> bool:
        """Tell whether an owner is gone: it has left, or given no sign of life for so many seconds."""


class Folder:
    """A folder of a file system: a process that dies is gone at once for those of its machine (`leases`).

    Args:
        root: the folder; made by the first file.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def make(self, folder: str) -> None:
        """Make a folder."""
        patiently(lambda: (self._root / folder).mkdir(parents=True, exist_ok=True), f"make {self._root / folder}")

    def create(self, name: str, content: str) -> bool:
        """Make a file as one process alone can."""

        def make() -> bool:
            try:
                file = (self._root / name).open("x")
            except FileExistsError:
                return False
            try:
                with file:
                    _fill(file, content)
            except OSError:
                with contextlib.suppress(OSError):  # the next try makes it, whole
                    (self._root / name).unlink()
                raise
            return True

        return patiently(make, f"write {self._root / name}")

    def read(self, name: str) -> str:
        """Return the content of a file."""
        return self._seen(name, Path.read_text)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there."""
        patiently(lambda: (self._root / name).unlink(missing_ok=True), f"remove {self._root / name}")

    def expired(self, name: str, lease: float) -> bool:
        """Tell whether a file has not been touched for so many seconds."""
        return self._seen(name, lambda path: leases.expired(path, lease))

    @contextlib.contextmanager
    def owner(self, folder: str) -> Iterator[str]:
        """Be an owner in the block."""
        self.make(folder)
        leases.sweep(self._root / folder)
        with contextlib.ExitStack() as stack:
            claim = patiently(lambda: stack.enter_context(leases.claimed(self._root / folder)), f"write {self._root}")
            yield claim.name

    def is_left(self, name: str, lease: float) -> bool:
        """Tell whether an owner is gone."""
        return self._seen(name, lambda path: leases.is_left(path, lease))

    def _seen(self, name: str, look: Callable[[Path], _Value]) -> _Value:
        """Look at a file that others may remove meanwhile.

        Raises:
            FileNotFoundError: there is none; NFS says that a file is stale that another machine has removed.
        """

        def looked() -> _Value:
            try:
                return look(self._root / name)
            except OSError as error:
                if error.errno == errno.ESTALE:
                    raise FileNotFoundError(errno.ENOENT, error.strerror, name) from error
                raise

        return patiently(looked, f"read {self._root / name}")


def _fill(file: TextIO, content: str) -> None:
    file.write(content)
    file.flush()
