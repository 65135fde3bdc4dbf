"""Images decoded once, into a memory-mapped array that later loads open without decoding.

While it grows, the array is a partial file, and a note beside it says how far the file is whole (`_pass.py`). Only who
holds the lock writes.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from sharedlabel.data._locks import locked
from sharedlabel.data._pass import Decode, Pass, Progress, flush, replace
from sharedlabel.errors import DataError
from sharedlabel.files.plain import read_json
from sharedlabel.machine import mapped, memory

_HEADER = 128  # bytes of the .npy header
_ABANDONED = 7 * 24 * 3600.0  # seconds after which a partial file that nobody works on is removed
_DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError)
Skipped = tuple[tuple[int, str], ...]


@dataclass(frozen=True)
class Decoded:
    """Decoded images.

    Attributes:
        images: memory-mapped, without those that were skipped.
        skipped: position and reason of each that was.
    """

    images: UInt8[Tensor, "N C H W"]
    skipped: Skipped


def cached(
    folder: Path, key: str, names: Sequence[str], decode: Decode, *, skip: bool = False, least: int = 0
) -> Decoded:
    """Return the memory-mapped images of a key; decode and store them only if they are not there yet.

    Args:
        folder: where caches lie.
        key: stands for all that the pixels depend on.
        names: of the files.
        decode: decodes some of them in order; called only when needed.
        skip: leave out files that cannot be decoded.
        least: bytes that every decoded image has at least, as far as is known before.

    Raises:
        DataError: a file cannot be decoded, images of different shapes or of one colour each, or the cache cannot be
            written.
    """
    array, note = folder / f"{key}.npy", folder / f"{key}.json"
    if note.exists() or array.exists():
        try:
            return _open(array, note, len(names))
        except _DAMAGED as error:
            warnings.warn(f"decoded images in {array} are damaged ({error}); decoding again", RuntimeWarning, 2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder, key)
        with locked(folder / f"{key}.lock"):
            with contextlib.suppress(*_DAMAGED):  # another process may have been quicker
                return _open(array, note, len(names))
            partial = _Partial(folder / f"{key}.partial", len(names))
            partial.check_room(least)
            done = Pass(names, decode, skip, folder / f"{key}.progress").run(partial)
            _publish(partial.path, done, array, note)
            return _open(array, note, len(names))
    except OSError as error:
        raise DataError(
            f"expected to store the decoded images in {folder.absolute()}, got: {error}; free some space or choose a "
            "root that this user may write to"
        ) from error


def _open(array_path: Path, note_path: Path, count: int) -> Decoded:
    note = read_json(note_path.read_bytes())
    if array_path.stat().st_size != note["bytes"]:
        raise ValueError(f"expected {note['bytes']} bytes, got {array_path.stat().st_size}")
    array = mapped.opened(array_path)
    skipped = tuple((int(position), str(reason)) for position, reason in note["skipped"])
    whole = array.dtype == torch.uint8 and list(array.shape) == note["shape"] and array.ndim == 4
    if not whole or array.shape[0] != count - len(skipped):
        raise ValueError(f"expected {count - len(skipped)} images of {note['shape'][1:]}, got {list(array.shape)}")
    return Decoded(array, skipped)


def _publish(partial: Path, done: Progress, array: Path, note: Path) -> None:
    """Rename a whole array into place, then write the note that vouches for it."""
    note.unlink(missing_ok=True)
    partial.replace(array)
    replace(note, json.dumps({"bytes": _length(done), "shape": done.stack, "skipped": done.skipped}))
    note.with_suffix(".progress").unlink(missing_ok=True)


class _Partial:
    """An array that grows; whoever calls it holds the lock.

    Args:
        path: of its file.
        count: images that it will hold at most.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path, self.count = path, count

    def holds(self, done: Progress) -> bool:
        """Tell whether it is as long as it was."""
        return self.path.stat().st_size >= _length(done)

    @contextlib.contextmanager
    def opened(self, done: Progress) -> Iterator[None]:
        """Go on at the end of what is whole; at the end of the block the array is."""
        with self.path.open("r+b" if done.kept else "w+b") as self._file:
            self._file.truncate(_length(done))
            self._file.seek(_length(done))
            yield
            self._file.seek(0)
            self._file.write(_header(done.stack))
            flush(self._file)

    def put(self, image: NDArray[np.uint8], first: bool) -> None:
        """Append an image; the first of all says how long the array will be."""
        if first:
            self.check_room(image.nbytes)
        self._file.write(image.tobytes())

    def flush(self) -> None:
        """Force what was written to the disk."""
        flush(self._file)

    def remove(self) -> None:
        """Remove it."""
        self.path.unlink(missing_ok=True)

    def check_room(self, each: int) -> None:
        """Refuse images of so many bytes each that do not fit on the disk."""
        written = self.path.stat().st_size if self.path.exists() else 0
        needed, free = each * self.count, shutil.disk_usage(self.path.parent).free + written
        if needed > free:
            raise DataError(
                f"expected room for {self.count:,} decoded images in {self.path.parent.absolute()}, "
                f"{memory.readable(needed)}, got {memory.readable(free)} free; set a smaller `size`, free space or "
                "choose another data_root"
            )


def _length(done: Progress) -> int:
    """Return the bytes of the array's file up to here."""
    return _HEADER + (int(np.prod(done.stack)) if done.kept else 0)


def _header(shape: Sequence[int]) -> bytes:
    """Return a .npy header of a fixed length: it is written last, over room that was left for it."""
    facts = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + f"{facts:{_HEADER - 11}}\n".encode("latin-1")


def _sweep(folder: Path, key: str) -> None:
    """Remove what killed processes left of other images long ago; a process that is at work holds its lock."""
    for partial in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if partial.stem != key and time.time() - partial.stat().st_mtime > _ABANDONED:
                with locked(partial.with_suffix(".lock"), wait=False):
                    for file in (partial, partial.with_suffix(".progress")):
                        file.unlink(missing_ok=True)
