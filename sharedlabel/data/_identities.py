"""What the files of a source hold: a checksum and a length of each, and which of them are copies of another.

To read all files of a large folder takes minutes. So what was read is noted, with the size and the times that each file
had just before, and files that still have these are not read again. Whoever does not trust times deletes the note.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeAlias

from sharedlabel.data._locks import locked
from sharedlabel.data._source import UNREADABLE, BadFileError, Identity, Source
from sharedlabel.machine import progress

SETTLED = 2_000_000_000  # nanoseconds that a file must have been as it is: coarse clocks would hide a later change
EVERY = 60.0  # seconds of reading that a killed process loses at most
_READERS, _PART = 16, 64  # threads, which wait for disks most of the time, and files that each is given at once


class _Entry(NamedTuple):
    """What is known of a file.

    Attributes:
        stamp: its size and times before it was read; empty if it may change without these changing.
        identity: its checksum and length.
        digest: sha256 of its bytes, if another file has the same identity.
        read: whether any of this was read of it.
    """

    stamp: str
    identity: Identity
    digest: str = ""
    read: bool = True


_Entries: TypeAlias = Mapping[str, _Entry]


def look(source: Source, names: Sequence[str], folder: Path) -> tuple[list[Identity], list[int]]:
    """Return the identities of files, and number their contents from 0: copies have one number.

    Args:
        source: what they lie in.
        names: of the files.
        folder: where it is noted what was read.

    Raises:
        DataError: one of them is no plain file.
    """
    note = folder / f"{hashlib.sha256(source.place.encode(errors='surrogateescape')).hexdigest()}.identities"
    former = _noted(note)
    entries = _identified(source, names, former, note)
    alike: dict[Identity, list[str]] = {}
    for name in names:
        alike.setdefault(entries[name].identity, []).append(name)
    for own in alike.values():  # a checksum of 32 bits may agree by chance
        for name in own if len(own) > 1 else ():
            entries[name] = _digested(source, name, entries[name])
    _write(note, entries, former)
    numbers: dict[tuple[Identity, str], int] = {}
    keys = ((entries[name].identity, entries[name].digest) for name in names)
    return [entries[name].identity for name in names], [numbers.setdefault(key, len(numbers)) for key in keys]


def _identified(source: Source, names: Sequence[str], former: _Entries, note: Path) -> dict[str, _Entry]:
    """Return what is known of files when those that are new or touched have been read."""
    settled = time.time_ns() - SETTLED

    def looked(part: Sequence[str]) -> list[_Entry]:
        return [_looked(source, name, former.get(name), settled) for name in part]

    entries: dict[str, _Entry] = {}
    written = time.monotonic()
    with progress.shown("reading files", len(names)) as tell, ThreadPoolExecutor(_READERS) as pool:
        for start in range(0, len(names), _READERS * _PART):
            some = names[start : start + _READERS * _PART]
            parts = pool.map(looked, [some[first : first + _PART] for first in range(0, len(some), _PART)])
            entries |= zip(some, (entry for part in parts for entry in part), strict=True)
            tell(len(entries))
            if time.monotonic() - written > EVERY:
                _write(note, {**former, **entries}, former)
                written = time.monotonic()
    return entries


def _looked(source: Source, name: str, former: _Entry | None, settled: int) -> _Entry:
    stamp = source.stamp(name)
    if former is not None and former.stamp == stamp.text:
        return former
    stated = source.stated(name)
    text = stamp.text if stamp.latest < settled else ""
    return _Entry(text, source.identity(name)) if stated is None else _Entry(text, stated, read=False)


def _digested(source: Source, name: str, entry: _Entry) -> _Entry:
    if entry.digest:
        return entry
    with contextlib.suppress(BadFileError):  # whoever decodes it says so
        return entry._replace(digest=hashlib.sha256(source.read(name)).hexdigest(), read=True)
    return entry


def _noted(note: Path) -> dict[str, _Entry]:
    """Return what was read before; nothing if that was never noted, or not by us."""
    try:
        stored = json.loads(note.read_bytes()).items()
        return {
            str(name): _Entry(str(stamp), (int(checksum), int(length)), str(digest))
            for name, (stamp, checksum, length, digest) in stored
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _write(note: Path, entries: _Entries, former: _Entries) -> None:
    """Note what was read, if it is not noted yet; whoever may not write it reads it again."""
    kept = {
        name: entry for name, entry in entries.items() if entry.read and entry.stamp and entry.identity != UNREADABLE
    }
    if kept == former:
        return
    record = {name: (entry.stamp, *entry.identity, entry.digest) for name, entry in kept.items()}
    with contextlib.suppress(OSError):
        note.parent.mkdir(parents=True, exist_ok=True)
        with locked(note.with_suffix(".lock"), wait=False):
            written = note.with_suffix(".new")
            written.write_text(json.dumps(record, separators=(",", ":")))
            written.replace(note)
