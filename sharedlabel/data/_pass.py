"""One pass over image files, in order: each is decoded, checked and handed on; a killed pass goes on where it was.

As many processes as there are cores decode, and images are taken in order: what is kept, skipped and refused is what
one process would keep, skip and refuse.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sharedlabel.data._decode import decode_named
from sharedlabel.data._source import BadFileError, Source
from sharedlabel.decoding import Decoding
from sharedlabel.errors import DataError
from sharedlabel.files.plain import read_json
from sharedlabel.machine import cores, crew, progress

STEP_BYTES, STEP_IMAGES = 64 << 20, 1000  # what a killed process loses at most
_DAMAGED = (OSError, ValueError, KeyError, TypeError)
Outcome: TypeAlias = NDArray[np.uint8] | BadFileError
Decode: TypeAlias = Callable[[Sequence[str]], Generator[Outcome, None, None]]


@dataclass(frozen=True)
class Reader:
    """Decodes the files of a source by their names, in any process."""

    source: Source
    decoding: Decoding

    def __call__(self, name: str) -> Outcome:
        """Return an image, or what is wrong with its file."""
        try:
            return self.image(name, self.source.read(name))
        except BadFileError as error:
            return error

    def image(self, name: str, data: bytes) -> NDArray[np.uint8]:
        """Return the image that the bytes of a file are.

        Raises:
            BadFileError: they are none.
        """
        return decode_named(name, data, self.decoding)

    def all(self, names: Sequence[str]) -> Generator[Outcome, None, None]:
        """Yield the images of files in order."""
        return crew.ordered(self, names, cores.available())


@dataclass
class Progress:
    """How far a pass has come.

    Attributes:
        position: of the next file.
        shape: channels, height and width, once an image was decoded.
        first: name of the file that had it first.
        kept: images so far.
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
    def stack(self) -> list[int]:
        """Shape of all images together."""
        return [self.kept, *(self.shape or [])]


class Keeper(Protocol):
    """What becomes of the images."""

    def holds(self, done: Progress) -> bool:
        """Tell whether it has what a killed pass had put."""

    def opened(self, done: Progress) -> AbstractContextManager[None]:
        """Take images in a block, after those."""

    def put(self, image: NDArray[np.uint8], first: bool) -> None:
        """Take an image."""

    def flush(self) -> None:
        """Keep what was put, whatever happens now."""

    def remove(self) -> None:
        """Drop everything."""


class Pass:
    """A pass; whoever runs it holds a lock.

    Args:
        names: of the files.
        decode: decodes some of them in order.
        skip: leave out files that cannot be decoded.
        note: says how far it has come.
    """

    def __init__(self, names: Sequence[str], decode: Decode, skip: bool, note: Path) -> None:
        self.names, self.decode, self.skip, self.note = names, decode, skip, note

    def run(self, keeper: Keeper) -> Progress:
        """Look at all files, from where a process was that was killed.

        Raises:
            DataError: the first file that cannot be decoded, or is not like the others; or images of one colour each.
        """
        done = self._resumed(keeper)
        try:
            with keeper.opened(done):
                self._decode(keeper, done)
                self._check(done)
        except DataError:  # would come again, and other files have another key
            self._remove(keeper)
            raise
        return done

    def _resumed(self, keeper: Keeper) -> Progress:
        """Return how far a process came that was killed, or the beginning."""
        try:
            done = Progress(**read_json(self.note.read_bytes()))
            if keeper.holds(done) and 0 <= done.position <= len(self.names):
                return done
        except _DAMAGED:  # there is none, or it is of no use
            pass
        self._remove(keeper)
        return Progress()

    def _decode(self, keeper: Keeper, done: Progress) -> None:
        since = done.kept
        outcomes = self.decode(self.names[done.position :])
        with closing(outcomes), progress.shown("decoding images", len(self.names)) as tell:
            for outcome in outcomes:
                self._one(keeper, done, outcome)
                done.position += 1
                tell(done.position)
                pending = done.kept - since
                if pending >= STEP_IMAGES or pending * int(np.prod(done.shape or [0])) >= STEP_BYTES:
                    keeper.flush()
                    replace(self.note, json.dumps(dataclasses.asdict(done)))
                    since = done.kept

    def _one(self, keeper: Keeper, done: Progress, image: Outcome) -> None:
        name = self.names[done.position]
        if isinstance(image, BadFileError):
            if not self.skip:
                raise image
            done.skipped.append([done.position, str(image)])
            return
        if done.shape is None:
            done.shape, done.first = list(image.shape), name
        elif done.shape != list(image.shape):
            raise DataError(_different(done.first, done.shape, name, image.shape))
        done.varied = done.varied or bool((image != image[:, :1, :1]).any())
        keeper.put(image, not done.kept)
        done.kept += 1

    def _check(self, done: Progress) -> None:
        if not done.kept:
            raise DataError(f"expected images that can be read, got none of {len(self.names):,}: {done.skipped[0][1]}")
        shape = done.shape or []
        if not done.varied and shape[1] * shape[2] > 1:
            raise DataError(
                f"expected images that show something, got {done.kept:,} images of one colour each, such as "
                f"{done.first!r}; check the files, and the options `background`, `size` and `channels`"
            )

    def _remove(self, keeper: Keeper) -> None:
        keeper.remove()
        self.note.unlink(missing_ok=True)


def _different(first: str, shape: Sequence[int], name: str, other: Sequence[int]) -> str:
    if list(shape[1:]) != list(other[1:]):
        sizes = f"{shape[2]}x{shape[1]} in {first!r} and {other[2]}x{other[1]} in {name!r}"
        return f"expected images of one size, got {sizes}; set `size` to scale them to a square"
    kinds = f"{shape[0]} in {first!r} and {other[0]} in {name!r}"
    return f"expected images with equally many channels, got {kinds}; set `channels` to 1 or 3"


def flush(file: BinaryIO) -> None:
    """Force what was written to a file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def replace(path: Path, text: str) -> None:
    """Write a text in the place of another, whole or not at all."""
    written = path.with_name(f"{path.name}.new")
    with written.open("wb") as file:
        file.write(f"{text}\n".encode())
        flush(file)
    written.replace(path)
