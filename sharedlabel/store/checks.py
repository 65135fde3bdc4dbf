"""Whether an artifact is whole and what its place says: by its bytes, or by sizes and times since these were read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharedlabel.config import digest
from sharedlabel.errors import ConfigError, home
from sharedlabel.files.plain import read_file, read_json
from sharedlabel.store.artifacts import FORMAT, MANIFEST

CACHE = "SHAREDLABEL_CACHE"
_SHARD = re.compile(r"shard-[0-9]{5,}\.safetensors")
_MISSING = (FileNotFoundError, IsADirectoryError, NotADirectoryError)  # something else lies in a file's place
_NOTES = re.compile("[0-9a-f]{32}")  # names of files of notes
_SETTLED = 0.1  # seconds after which a change of a file shows in its time, on file systems that count in nanoseconds
_KEPT = 90 * 86_400.0  # seconds for which notes on a store are kept that nobody opens
_SPARE = 1000  # lines of notes that are out of date before they are written anew


def cache() -> Path:
    """Return the folder of this user and machine for what can be made again, from wherever it is.

    Raises:
        ConfigError: this user has no home, and nothing else says where.
    """
    said = os.environ.get(CACHE, "")
    return home(said) if said else home(os.environ.get("XDG_CACHE_HOME", "") or "~/.cache") / "sharedlabel"


def damage(folder: Path) -> str:
    """Say what is wrong with an artifact's folder, every byte read; empty if it holds, intact, what its place says.

    Raises:
        OSError: it cannot be read, such as for lack of a right, which says nothing of the artifact.
    """
    try:
        manifest = read_manifest(read_file(folder / MANIFEST), folder.parent.name, folder.name)
        for name, checksum in manifest["files"].items():
            if not (folder / name).is_file():
                return f"{name!r} is no file of it"
            if (folder / name).stat().st_size != manifest.get("bytes", {}).get(name, (folder / name).stat().st_size):
                return f"{name} does not have its size"
            if hashed(folder / name) != checksum:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, OSError) and not isinstance(error, _MISSING):
            raise
        return str(error) if isinstance(error, DamageError) else f"{type(error).__name__}: {error}"
    return ""


class DamageError(ValueError):
    """A manifest that is not that of its place, or not what was written."""


def read_manifest(content: bytes, stage: str, key: str) -> dict[str, Any]:
    """Read a manifest.

    Args:
        content: of its file.
        stage: as its place says.
        key: likewise.

    Raises:
        DamageError: it was altered, or is that of another place.
        ValueError: it is no manifest; likewise KeyError, AttributeError and TypeError.
    """
    manifest: dict[str, Any] = read_json(content)
    expected = manifest.pop("sha256")
    if digest(manifest) != expected:
        raise DamageError("its manifest was altered")
    stated = tuple(manifest[name] for name in ("stage", "key", "format"))
    if stated != (stage, key, FORMAT):
        raise DamageError("its manifest is that of {}/{:.12}, format {}, which was put in its place".format(*stated))
    for name in manifest["files"]:
        if not _SHARD.fullmatch(name):
            raise DamageError(f"{name!r} is no file of it")
    return manifest


def hashed(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Notes:
    """Which artifacts of a store this machine has read whole and intact, with the sizes and times of their files then.

    They lie in the cache of the user, one file for each store, so that a store that is only read has them, too. What is
    lost of them, or written by two at once, costs another reading.

    Args:
        root: folder of the store.
    """

    def __init__(self, root: Path) -> None:
        name = hashlib.sha256(os.fsencode(root.absolute())).hexdigest()[:32]
        self._path: Path | None = None  # for a user without a home
        with contextlib.suppress(ConfigError):
            self._path = cache() / "checked" / name
        self._states: dict[str, str] = {}
        self._read = 0  # bytes of the file

    def hold(self, folder: Path) -> bool:
        """Tell whether an artifact has the sizes and times that it had when it was read."""
        seen, name = state(folder), _name(folder)
        if seen and self._states.get(name) != seen:
            self._catch_up()
        return seen != "" and self._states.get(name) == seen

    def note(self, folder: Path, seen: str) -> None:
        """Keep in what state an artifact was read and found intact.

        Args:
            folder: of the artifact.
            seen: its state before it was read; empty if it is not intact or may be changing.
        """
        seen = seen or "-"
        if self._states.get(_name(folder)) != seen:
            self._states[_name(folder)] = seen
            if self._path is None:
                return
            with contextlib.suppress(OSError):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a") as file:
                    file.write(f"{_name(folder)} {seen}\n")

    def _catch_up(self) -> None:
        """Read what other processes have noted since we last looked, and tidy up the first time."""
        if self._path is None:
            return
        first = self._read == 0
        with contextlib.suppress(OSError, ValueError):
            with self._path.open("rb") as file:
                file.seek(self._read)
                lines = file.read().decode().splitlines()
                self._read = file.tell()
            self._states |= dict(line.split(" ") for line in lines if line.count(" ") == 1)
            if first:
                _tend(self._path, self._states, len(lines))


def _tend(path: Path, states: Mapping[str, str], lines: int) -> None:
    """Write notes anew that are mostly out of date, and remove those on stores that nobody has opened for long."""
    if lines > 2 * len(states) + _SPARE:
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
            file.writelines(f"{name} {state}\n" for name, state in states.items())
        Path(file.name).replace(path)
    os.utime(path)
    for other in path.parent.iterdir():
        if _NOTES.fullmatch(other.name) and time.time() - other.stat().st_mtime > _KEPT:
            other.unlink()


def backdate(path: Path) -> None:
    """Let a file that was just written look older, so that any change of it shows in its time, even at once."""
    before = time.time_ns() - int(2e9 * _SETTLED)
    os.utime(path, ns=(before, before))


def _name(folder: Path) -> str:
    return "/".join(folder.parts[-2:])


def state(folder: Path) -> str:
    """Return the names, sizes and times of an artifact's files, in short; empty if they may still be changing."""
    try:
        with os.scandir(folder) as entries:
            files = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in entries)
    except OSError:
        return ""
    settled = time.time_ns() - int(1e9 * _SETTLED)
    if any(changed > settled for _, _, changed in files):
        return ""
    return hashlib.sha256(repr(files).encode()).hexdigest()[:32]
