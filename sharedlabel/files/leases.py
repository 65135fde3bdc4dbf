"""Folders that belong to a process while it works, and are left over when it has died.

A name, a host or a process id does not tell who lives: containers have all of them alike. A folder is claimed by a lock
on the file `lock` in it, which the system releases whatever ends the process. Where locks may not be seen, on another
machine or a file system without them, the lease counts: the owner touches the file every half minute, and who has not
for ten minutes, by the clock of the file system, is gone.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import threading
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO

LEASE = 600.0  # seconds without a sign of life after which an owner that cannot be seen is gone
HEARTBEAT = 30.0  # seconds between signs of life
MARK = ".sharedlabel-"  # begins the names of claimed folders that lie among files of others
LOCK = "lock"
_TOKEN = re.compile("[0-9a-f]{32}")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_held: weakref.WeakSet[IO[str]] = weakref.WeakSet()


def machine() -> str:
    """Return what processes that see each other's locks have in common, the running kernel; empty if it has no name."""
    try:
        return _BOOT_ID.read_text().strip()
    except OSError:
        return ""


@contextlib.contextmanager
def claimed(place: Path, mark: str = "") -> Iterator[Path]:
    """Make a folder that nobody removes while this process lives, and remove it at the end.

    Args:
        place: where to make it.
        mark: beginning of its name; `MARK` among files of others.

    Raises:
        OSError: it cannot be made.
    """
    folder, owner = place / f"{mark}{uuid.uuid4().hex}", os.getpid()
    folder.mkdir()
    try:
        made = folder / f"{LOCK}.new"
        with made.open("w") as file:
            with contextlib.suppress(OSError):  # no locks here: the lease alone says who lives
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(machine())
            file.flush()
            made.rename(folder / LOCK)  # only now others look at it
            with alive(file):
                yield folder
    finally:
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def alive(file: IO[str]) -> Iterator[None]:
    """Touch an open file every half minute; processes that are forked meanwhile do not keep its lock."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT):
            with contextlib.suppress(OSError):
                os.utime(file.fileno())

    os.utime(file.fileno())
    beating = threading.Thread(target=beat, name="lease", daemon=True)
    beating.start()
    _held.add(file)
    try:
        yield
    finally:
        _held.discard(file)
        ended.set()
        beating.join()


def sweep(place: Path, mark: str = "", former: str = "") -> None:
    """Remove the claimed folders whose owners are gone; harmless while others do the same.

    Args:
        place: where they were made.
        mark: beginning of their names.
        former: expression of other names to remove once their lease is over.
    """
    for folder in sorted(place.iterdir()):
        name = folder.name.removeprefix(mark)
        ours = folder.name.startswith(mark) and _TOKEN.fullmatch(name)
        if not (ours or (former and re.fullmatch(former, folder.name))):
            continue
        with contextlib.suppress(OSError):  # another one removes it, or it is not ours to remove
            _remove_if_left(folder, place / f"{mark}{uuid.uuid4().hex}")


def is_left(folder: Path, lease: float = LEASE) -> bool:
    """Tell whether the owner of a claimed folder is gone, or has removed it.

    Args:
        folder: which was claimed.
        lease: seconds without a sign of life after which an owner that cannot be seen is gone.

    Raises:
        OSError: it cannot be looked at.
    """
    try:
        file = (folder / LOCK).open("r+")
    except FileNotFoundError:  # its owner died before it was locked, has just made it, or has removed it
        try:
            return expired(folder, lease)
        except FileNotFoundError:
            return True
    with file:
        return _is_left(file, lease)


def expired(path: Path, lease: float = LEASE) -> bool:
    """Tell whether a file or folder was not touched for a lease, by the clock of its file system."""
    touched = path.stat().st_mtime
    with tempfile.TemporaryFile(dir=path.parent) as probe:
        return os.fstat(probe.fileno()).st_mtime - touched > lease


def _remove_if_left(folder: Path, aside: Path) -> None:
    """Remove a folder without a living owner; it is renamed first, so that a late owner finds it gone, not half there.

    Raises:
        OSError: it cannot be looked at or removed, or somebody else has removed it.
    """
    try:
        file = (folder / LOCK).open("r+")
    except FileNotFoundError:  # its owner died before it was locked, or has just made it
        if expired(folder):
            folder.rename(aside)
            shutil.rmtree(aside)
        return
    with file:  # which keeps its lock meanwhile
        if _is_left(file, LEASE):
            folder.rename(aside)
            shutil.rmtree(aside)


def _is_left(file: IO[str], lease: float) -> bool:
    """Lock the file of a claimed folder if its owner is gone, and tell whether it is."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if machine() != "" and file.read() == machine():
            return True
    except BlockingIOError:
        return False
    except OSError:  # no locks here: the lease alone says who lives
        pass
    return expired(Path(file.name), lease)


def _forget() -> None:
    """Close the locks that a fork has inherited: they are its parent's, and have to end with it."""
    for file in list(_held):
        file.close()
    _held.clear()


os.register_at_fork(after_in_child=_forget)
