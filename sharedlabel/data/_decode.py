"""Images decoded once, into a memory-mapped array that later loads open without decoding."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from sharedlabel.errors import DataError

VERSION = 1  # raise when the same file would decode to other pixels
_GREY_MODES = {"1", "L", "LA", "La"}
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def decode(data: bytes, size: int | None, channels: int | None) -> UInt8[np.ndarray, "C H W"]:
    """Decode one image file, turned upright if its EXIF data say how.

    Args:
        data: the bytes of the file.
        size: pixels of the side of the square that is cut from the centre and scaled; None leaves the image as it is.
        channels: 1 for grey, 3 for colour, None for what the file has; transparency is dropped.

    Raises:
        ValueError: more than 8 bits per channel.
        OSError: truncated, or not an image.
    """
    with Image.open(io.BytesIO(data)) as image:
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"pixels of mode {image.mode}; 8 bits per channel are read")
        grey = channels == 1 or (channels is None and image.mode in _GREY_MODES)
        image.load()
        with contextlib.suppress(Exception):  # EXIF data may be damaged in any way; the image is read all the same
            ImageOps.exif_transpose(image, in_place=True)
        pixels = image.convert("L" if grey else "RGB")
    if size is not None and pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels)
    return array[None] if grey else array.transpose(2, 0, 1)


def decode_named(name: str, data: bytes, size: int | None, channels: int | None) -> UInt8[np.ndarray, "C H W"]:
    """Decode one image file as `decode` does.

    Raises:
        DataError: truncated, or not an image; the message names it.
    """
    try:
        return decode(data, size, channels)
    except _BROKEN as error:
        raise DataError(f"expected an image in {name!r}, got: {_reason(error)}; repair or remove it") from error


def decode_all(
    names: Iterable[str], read: Callable[[str], bytes], size: int | None, channels: int | None
) -> Iterator[UInt8[np.ndarray, "C H W"]]:
    """Decode files one after another and require a common shape.

    Raises:
        DataError: a file is truncated, not an image, or of another shape than the first; the message names it.
    """
    first_name, shape = "", None
    for name in names:
        image = decode_named(name, read(name), size, channels)
        if shape is None:
            first_name, shape = name, image.shape
        elif image.shape != shape:
            raise DataError(_different(first_name, shape, name, image.shape))
        yield image


def cached(
    folder: Path, fingerprint: str, count: int, images: Callable[[], Iterator[NDArray[np.uint8]]]
) -> UInt8[Tensor, "N C H W"]:
    """Return the memory-mapped images of a fingerprint; decode and store them only if they are not there yet.

    Args:
        folder: where caches lie.
        fingerprint: what the pixels depend on.
        count: number of images.
        images: decodes them one after another; called only when needed.

    Raises:
        DataError: the cache cannot be written.
    """
    array_path, note_path = folder / f"{fingerprint}.npy", folder / f"{fingerprint}.json"
    if note_path.exists() or array_path.exists():
        try:
            return _open(array_path, note_path, count)
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            warnings.warn(f"decoded images in {array_path} are damaged ({error}); decoding again", RuntimeWarning, 2)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(array_path, note_path, count, images())
        return _open(array_path, note_path, count)
    except OSError as error:
        raise DataError(
            f"expected to store the decoded images in {folder.absolute()}, got: {error}; free some space or choose a "
            "root that this user may write to"
        ) from error


def _reason(error: Exception) -> str:
    # Pillow would name a buffer in memory.
    return "no image format that Pillow knows" if isinstance(error, UnidentifiedImageError) else str(error)


def _different(first: str, shape: tuple[int, ...], name: str, other: tuple[int, ...]) -> str:
    if shape[1:] != other[1:]:
        sizes = f"{shape[2]}x{shape[1]} in {first!r} and {other[2]}x{other[1]} in {name!r}"
        return f"expected images of one size, got {sizes}; set `size` to scale them to a square"
    kinds = f"{shape[0]} in {first!r} and {other[0]} in {name!r}"
    return f"expected images with equally many channels, got {kinds}; set `channels` to 1 or 3"


def _open(array_path: Path, note_path: Path, count: int) -> UInt8[Tensor, "N C H W"]:
    note = json.loads(note_path.read_text())
    if array_path.stat().st_size != note["bytes"]:
        raise ValueError(f"expected {note['bytes']} bytes, got {array_path.stat().st_size}")
    # Copy on write: torch wants a writable array, the file stays as it is.
    array = np.load(array_path, mmap_mode="c")
    if array.dtype != np.uint8 or list(array.shape) != note["shape"] or array.ndim != 4 or array.shape[0] != count:
        raise ValueError(f"expected {count} images of shape {note['shape'][1:]}, got {array.dtype} {array.shape}")
    return torch.from_numpy(array)


def _write(array_path: Path, note_path: Path, count: int, images: Iterator[NDArray[np.uint8]]) -> None:
    """Write the array image by image, then the note that vouches for it, each renamed into place when complete."""
    first = next(images)
    shape = (count, *first.shape)
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with tempfile.TemporaryDirectory(dir=array_path.parent, prefix=".partial-") as partial:
        temporary = Path(partial) / "images.npy"
        with temporary.open("wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            for image in itertools.chain([first], images):
                file.write(image.tobytes())
            file.flush()
            os.fsync(file.fileno())
        note: dict[str, Any] = {"bytes": temporary.stat().st_size, "shape": list(shape)}
        note_path.unlink(missing_ok=True)
        temporary.replace(array_path)
        written = Path(partial) / "note.json"
        written.write_text(json.dumps(note) + "\n")
        written.replace(note_path)
