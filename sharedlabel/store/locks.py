"""A file that many processes of a machine may lock together, or one alone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from sharedlabel.files import leases


@contextlib.contextmanager
def locked(path: Path, alone: bool, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold a lock in the block; it ends with the process. Where the file system has none, a warning says so.

    Args:
        path: of the file, made if absent.
        alone: or together with others that hold it together.
        waiting: told before a wait.
    """
    with _opened(path, fcntl.LOCK_EX if alone else fcntl.LOCK_SH, waiting) as (file, holds):
        try:
            with leases.alive(file):
                yield
        finally:
            if holds and not file.closed:
                fcntl.flock(file, fcntl.LOCK_UN)


def remove_left(path: Path) -> None:
    """Remove a file that nobody has touched for a lease and nobody holds.

    Raises:
        OSError: somebody holds it, or it cannot be looked at.
    """
    if leases.expired(path):
        with path.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


@contextlib.contextmanager
def _opened(path: Path, kind: int, waiting: Callable[[], None]) -> Iterator[tuple[IO[str], bool]]:
    """Open a file and lock it, once more where it was removed before it was locked; False where there are no locks."""
    while True:
        with path.open("a") as file:
            holds = _locked(file, kind, waiting)
            if holds and not _lies_at(path, file):
                continue
            yield file, holds
            return


def _lies_at(path: Path, file: IO[str]) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _locked(file: IO[str], kind: int, waiting: Callable[[], None]) -> bool:
    """Lock a file, and tell before a wait; False where the file system has no locks."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, kind)
    except OSError as error:
        warnings.warn(
            f"expected a file system with locks at {file.name}, got: {error.strerror}; runs that share this store are "
            "not kept apart while times are measured",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True
