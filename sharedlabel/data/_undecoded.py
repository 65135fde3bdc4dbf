"""Images that stay in their files, decoded whenever they are used, and the check of them that comes first.

A decoded copy of a large data set may not fit on the disk. Without one, every use of an image costs its decoding.
Threads do that: Pillow releases the interpreter lock while it decodes, converts and scales, nine tenths of the time for
photographs. What a training or an embedding asks for next is decoded while it computes.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Num
from numpy.typing import NDArray
from torch import Tensor

from sharedlabel.data._cache import Skipped
from sharedlabel.data._locks import locked
from sharedlabel.data._pass import Decode, Pass, Progress, Reader, replace
from sharedlabel.data._source import Source
from sharedlabel.decoding import Decoding
from sharedlabel.errors import DataError
from sharedlabel.files.plain import read_json
from sharedlabel.machine import cores

AHEAD = 2  # batches that are decoded while one is used
_PARTS = 4  # of a batch, for each thread: none waits long for the last


class _Means:
    """What a process decodes with: its own source, since one that is inherited shares its place in a file."""

    def __init__(self, path: Path) -> None:
        self.process, self.threads = os.getpid(), cores.available()
        self.source, self.pool = Source(path), ThreadPoolExecutor(self.threads, "decode")


class Undecoded:
    """Images in files, looked up like those of a tensor; what is returned is in memory.

    Args:
        path: of their folder or zip.
        decoding: how they become arrays.
        names: of their files.
        identities: `[N 2]`, checksum and length of each file when it was checked.
        image_shape: channels, height and width of each image.
    """

    dtype, device = torch.uint8, torch.device("cpu")

    def __init__(
        self,
        path: Path,
        decoding: Decoding,
        names: Sequence[str],
        identities: Int64[Tensor, "N 2"],
        image_shape: tuple[int, int, int],
    ) -> None:
        self.path, self.decoding, self.names = path.absolute(), decoding, names
        self.identities, self.image_shape = identities, image_shape
        self._means: _Means | None = None

    def __reduce__(self) -> tuple[type[Undecoded], tuple[Any, ...]]:
        """Return what another process makes it of."""
        return Undecoded, (self.path, self.decoding, self.names, self.identities, self.image_shape)

    @property
    def shape(self) -> torch.Size:
        """Shape of all images together."""
        return torch.Size([len(self.names), *self.image_shape])

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Tensor, /) -> Num[Tensor, "... C H W"]:
        """Return the images `[... C H W]` at `index [...]`.

        Raises:
            DataError: a file is not what it was when it was checked.
        """
        return self._gathered(*self._begun(index))

    def ahead(self, indices: Iterable[Tensor]) -> Iterator[Num[Tensor, "... C H W"]]:
        """Yield the images at each index in turn; the next are decoded while those of one are used."""
        begun: deque[tuple[Tensor, list[Future[None]]]] = deque()
        try:
            for index in indices:
                begun.append(self._begun(index))
                if len(begun) > AHEAD:
                    yield self._gathered(*begun.popleft())
            while begun:
                yield self._gathered(*begun.popleft())
        finally:
            for _, futures in begun:
                for future in futures:
                    future.cancel()

    def _begun(self, index: Tensor) -> tuple[Tensor, list[Future[None]]]:
        """Return room for images, and what fills it."""
        made = torch.empty(*index.shape, *self.image_shape, dtype=self.dtype)
        rows, positions = made.view(-1, *self.image_shape).numpy(), index.flatten().tolist()
        if self._means is None or self._means.process != os.getpid():
            self._means = _Means(self.path)
        own = self._means
        size = -(-len(positions) // (_PARTS * own.threads)) or 1
        parts = (slice(start, start + size) for start in range(0, len(positions), size))
        return made, [own.pool.submit(self._fill, rows[part], positions[part], own.source) for part in parts]

    def _gathered(self, made: Tensor, futures: list[Future[None]]) -> Tensor:
        wait(futures)
        for future in futures:
            future.result()
        return made

    def _fill(self, rows: NDArray[np.uint8], positions: Sequence[int], source: Source) -> None:
        for row, position in zip(rows, positions, strict=True):
            row[:] = self._image(position, source)

    def _image(self, position: int, source: Source) -> NDArray[np.uint8]:
        name = self.names[position]
        data = source.read(name)
        if [zlib.crc32(data), len(data)] != self.identities[position].tolist():
            raise DataError(
                f"expected {name!r} in {self.path.name} as it was when the run began, got another content; leave files "
                "alone while they are used, and run again"
            )
        return Reader(source, self.decoding).image(name, data)


@dataclass(frozen=True)
class Checked:
    """What is known of images that were all decoded once.

    Attributes:
        image_shape: channels, height and width of each.
        skipped: position and reason of each that was left out.
    """

    image_shape: tuple[int, int, int]
    skipped: Skipped


def checked(folder: Path, key: str, names: Sequence[str], decode: Decode, *, skip: bool = False) -> Checked:
    """Decode all images once, unless that was done, and keep nothing but what is said of them.

    Args:
        folder: where it is noted.
        key: stands for all that the pixels depend on.
        names: of the files.
        decode: decodes some of them in order.
        skip: leave out files that cannot be decoded.

    Raises:
        DataError: a file cannot be decoded, images of different shapes or of one colour each, or nothing can be noted.
    """
    note = folder / f"{key}.checked"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return _read(note, len(names))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / f"{key}.checked.lock"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # another process may have been quicker
                return _read(note, len(names))
            begun = folder / f"{key}.checking"
            done = Pass(names, decode, skip, begun).run(_Nothing())
            replace(note, json.dumps({"shape": done.shape, "skipped": done.skipped, "count": len(names)}))
            begun.unlink(missing_ok=True)
            return _read(note, len(names))
    except OSError as error:
        raise DataError(
            f"expected to note in {folder.absolute()} that images were checked, got: {error}; free some space or "
            "choose a root that this user may write to"
        ) from error


def _read(note: Path, count: int) -> Checked:
    stored = read_json(note.read_bytes())
    if stored["count"] != count:
        raise ValueError(f"expected a note of {count} files, got one of {stored['count']}")
    channels, height, width = map(int, stored["shape"])
    return Checked(
        (channels, height, width), tuple((int(position), str(reason)) for position, reason in stored["skipped"])
    )


class _Nothing:
    """Keeps no image."""

    def holds(self, done: Progress) -> bool:
        """Tell that nothing is missing."""
        del done
        return True

    def opened(self, done: Progress) -> contextlib.AbstractContextManager[Any]:
        """Take images in a block."""
        del done
        return contextlib.nullcontext()

    def put(self, image: NDArray[np.uint8], first: bool) -> None:
        """Take an image."""

    def flush(self) -> None:
        """There is nothing to keep."""

    def remove(self) -> None:
        """There is nothing to drop."""
