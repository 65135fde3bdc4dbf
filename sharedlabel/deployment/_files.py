"""Files of a model that somebody else may have written: opened only where they are plain files."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from pathlib import Path

from sharedlabel.errors import DeploymentError

_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def size(path: Path) -> int:
    """Return the bytes of a plain file without opening it: opening a pipe waits for a writer, a device may act.

    Raises:
        DeploymentError: there is no file, or something else than a plain one.
    """
    try:
        status = path.lstat()
    except (OSError, ValueError):
        raise DeploymentError(
            f"expected the file {path.name!r} in {path.parent}, got none; export the cell again"
        ) from None
    _check(status, path)
    return status.st_size


def opened(path: Path) -> io.BufferedReader:
    """Open a plain file, and nothing else, even if it is exchanged meanwhile.

    Raises:
        DeploymentError: there is no file, or something else than a plain one.
    """
    size(path)
    file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    _check(os.fstat(file.fileno()), path)
    return file


def sha256(path: Path) -> str:
    """Return the checksum of a plain file.

    Raises:
        DeploymentError: there is no file, or something else than a plain one.
    """
    with opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        raise DeploymentError(
            f"expected the plain file {path.name!r} in {path.parent}, got {kind}; copy the model with the content of "
            "its files, or export the cell again"
        )
