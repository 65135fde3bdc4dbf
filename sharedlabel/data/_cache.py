"""Images decoded once, into a memory-mapped array that later loads open without decoding.

While it grows, the array is a partial file, and a note beside it says how far the file is whole; a process that comes
after a killed one goes on from there. Only who holds the lock writes, and the system releases it when a process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from sharedlabel.data._locks import locked
from sharedlabel.data._source import BadFileError
from sharedlabel.errors import DataError
from sharedlabel.files.plain import read_json
from sharedlabel.machine import mapped, memory

STEP_BYTES, STEP_IMAGES = 64 << 20, 1000  # what a killed process loses at most
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


@dataclass
class _Progress:
    """How far decoding has come.

    Attributes:
        position: of the next file.
        shape: channels, height and width, once an image was decoded.
        first: name of the file that had it first.
        kept: images in the partial file.
        skipped: position and reason of each that was skipped.
        varied: whether any image has two colours.
    """

    position: int = 0
    shape: list[int] | None = None
    first: str = ""
    kept: int = 0
    skipped: list[list[int | str]] = dataclasses.field(default_factory=list)
    varied: bool = False

    @property
    def bytes(self) -> int:
        """Length of the partial file up to here."""
        return _HEADER + self.kept * int(np.prod(self.shape or [0]))


def cached(
    folder: Path,
    key: str,
    names: Sequence[str],
    decode: Callable[[str], NDArray[np.uint8]],
    *,
    skip: bool = False,
    least: int = 0,
) -> Decoded:
    """Return the memory-mapped images of a key; decode and store them only if they are not there yet.

    Args:
        folder: where caches lie.
        key: stands for all that the pixels depend on.
        names: of the files.
        decode: decodes one of them; called only when needed.
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
            writer = _Writer(folder, key, names, decode, skip)
            writer.check_room(least)
            writer.write(array, note)
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


class _Writer:
    """Decodes files into an array; whoever calls it holds the lock."""

    def __init__(
        self, folder: Path, key: str, names: Sequence[str], decode: Callable[[str], NDArray[np.uint8]], skip: bool
    ) -> None:
        self.names, self.decode, self.skip = names, decode, skip
        self.partial, self.note = folder / f"{key}.partial", folder / f"{key}.progress"

    def write(self, array: Path, note: Path) -> None:
        """Write the array, then the note that vouches for it, each renamed into place when complete."""
        done = self._resumed()
        try:
            with self.partial.open("r+b" if done.kept else "w+b") as file:
                file.truncate(done.bytes)
                file.seek(done.bytes)
                self._decode(file, done)
                self._check(done)
                file.seek(0)
                file.write(_header([done.kept, *(done.shape or [])]))
                _flush(file)
        except DataError:  # would come again, and other files have another key
            self._remove()
            raise
        note.unlink(missing_ok=True)
        self.partial.replace(array)
        record = {"bytes": done.bytes, "shape": [done.kept, *(done.shape or [])], "skipped": done.skipped}
        _replace(note, json.dumps(record))
        self.note.unlink(missing_ok=True)

    def _resumed(self) -> _Progress:
        """Return how far a process came that was killed, or the beginning."""
        try:
            progress = _Progress(**read_json(self.note.read_bytes()))
            if self.partial.stat().st_size >= progress.bytes and 0 <= progress.position <= len(self.names):
                return progress
        except _DAMAGED:  # there is none, or it is of no use
            pass
        self._remove()
        return _Progress()

    def _decode(self, file: BinaryIO, done: _Progress) -> None:
        since = done.kept
        for position in range(done.position, len(self.names)):
            self._one(file, done, position)
            done.position = position + 1
            pending = done.kept - since
            if pending >= STEP_IMAGES or pending * (done.bytes // max(done.kept, 1)) >= STEP_BYTES:
                _flush(file)
                _replace(self.note, json.dumps(dataclasses.asdict(done)))
                since = done.kept

    def _one(self, file: BinaryIO, done: _Progress, position: int) -> None:
        name = self.names[position]
        try:
            image = self.decode(name)
        except BadFileError as error:
            if not self.skip:
                raise
            done.skipped.append([position, str(error)])
            return
        if done.shape is None:
            done.shape, done.first = list(image.shape), name
            self.check_room(image.nbytes)
        elif done.shape != list(image.shape):
            raise DataError(_different(done.first, done.shape, name, image.shape))
        done.varied = done.varied or bool((image != image[:, :1, :1]).any())
        file.write(image.tobytes())
        done.kept += 1

    def check_room(self, each: int) -> None:
        """Refuse images of so many bytes each that do not fit on the disk."""
        written = self.partial.stat().st_size if self.partial.exists() else 0
        needed, free = each * len(self.names), shutil.disk_usage(self.partial.parent).free + written
        if needed > free:
            raise DataError(
                f"expected room for {len(self.names):,} decoded images in {self.partial.parent.absolute()}, "
                f"{memory.readable(needed)}, got {memory.readable(free)} free; set a smaller `size`, free space or "
                "choose another data_root"
            )

    def _check(self, done: _Progress) -> None:
        if not done.kept:
            raise DataError(f"expected images that can be read, got none of {len(self.names):,}: {done.skipped[0][1]}")
        shape = done.shape or []
        if not done.varied and shape[1] * shape[2] > 1:
            raise DataError(
                f"expected images that show something, got {done.kept:,} images of one colour each, such as "
                f"{done.first!r}; check the files, and the options `background`, `size` and `channels`"
            )

    def _remove(self) -> None:
        for file in (self.partial, self.note):
            file.unlink(missing_ok=True)


def _different(first: str, shape: Sequence[int], name: str, other: Sequence[int]) -> str:
    if list(shape[1:]) != list(other[1:]):
        sizes = f"{shape[2]}x{shape[1]} in {first!r} and {other[2]}x{other[1]} in {name!r}"
        return f"expected images of one size, got {sizes}; set `size` to scale them to a square"
    kinds = f"{shape[0]} in {first!r} and {other[0]} in {name!r}"
    return f"expected images with equally many channels, got {kinds}; set `channels` to 1 or 3"


def _header(shape: Sequence[int]) -> bytes:
    """Return a .npy header of a fixed length: it is written last, over room that was left for it."""
    facts = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {tuple(shape)}, }}"
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + f"{facts:{_HEADER - 11}}\n".encode("latin-1")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(path: Path, text: str) -> None:
    written = path.with_name(f"{path.name}.new")
    with written.open("wb") as file:
        file.write(f"{text}\n".encode())
        _flush(file)
    written.replace(path)


def _sweep(folder: Path, key: str) -> None:
    """Remove what killed processes left of other images long ago; a process that is at work holds its lock."""
    for partial in folder.glob("*.partial"):
        with contextlib.suppress(OSError):
            if partial.stem != key and time.time() - partial.stat().st_mtime > _ABANDONED:
                with locked(partial.with_suffix(".lock"), wait=False):
                    for file in (partial, partial.with_suffix(".progress")):
                        file.unlink(missing_ok=True)
