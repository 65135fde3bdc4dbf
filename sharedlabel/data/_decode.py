"""One image file becomes an array of 8 bits per channel: upright, without transparency, cut and scaled if asked."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64, UInt8
from numpy.typing import NDArray
from PIL import (  # noqa: F401 (Pillow knows the formats whose readers are imported)
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from sharedlabel.data._names import FORMATS, READ
from sharedlabel.data._source import BadFileError
from sharedlabel.decoding import Decoding

VERSION = 2  # raise when the same file would decode to other pixels
_GREY_MODES = {"1", "L", "LA", "La"}
_TYPES = (TypeError, AttributeError, AssertionError, NotImplementedError, RuntimeError)  # readers of damaged headers
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, ArithmeticError, LookupError, struct.error, zlib.error, *_TYPES)
_BITS, _FORM = 258, 339  # tags of TIFF
_LEAST, _MOST = (340, 280), (341, 281)
_SIGNED = 2


_MEND = "repair or remove it, or leave such files out (on_bad_image: skip)"


class UnsupportedError(ValueError):
    """A whole image that is not read; the message says what it is, and what to do."""


class _Range(NamedTuple):
    low: float
    high: float


def decode(data: bytes, decoding: Decoding) -> UInt8[np.ndarray, "C H W"]:
    """Decode one image file, turned upright if its EXIF data say how; of several pictures in it the first.

    Integers of 16 bits are scaled by 65535, or by the range that a TIFF states; floating point numbers are taken to
    lie from 0 to 1, or in that range.

    Args:
        data: the bytes of the file.
        decoding: what becomes of the pixels.

    Raises:
        UnsupportedError: a whole image, but of too many pixels, or of values that have no meaning in 8 bits.
        OSError, ValueError, ...: truncated, or not an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the bound is that of the error
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                grey = decoding.channels == 1 or (decoding.channels is None and _is_grey(image))
                image.load()
                with contextlib.suppress(
                    Exception
                ):  # EXIF data may be damaged in any way; the image is read all the same
                    ImageOps.exif_transpose(image, in_place=True)
                pixels = _opaque(_of_bytes(image), decoding.background, "L" if grey else "RGB")
        except Image.DecompressionBombError as error:
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            raise UnsupportedError(f"more than {most:,} pixels; scale it down or leave it out") from error
    size = decoding.size
    if decoding.trim is not None:
        pixels = _trimmed(pixels, decoding.trim)
    if size is not None and pixels.size != (size, size):
        pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
    array = np.asarray(pixels)
    return array[None] if grey else array.transpose(2, 0, 1)


def decode_named(name: str, data: bytes, decoding: Decoding) -> UInt8[np.ndarray, "C H W"]:
    """Decode one image file as `decode` does.

    Raises:
        BadFileError: truncated, not an image, or one that is not read; the message names it.
    """
    try:
        return decode(data, decoding)
    except UnsupportedError as error:
        raise BadFileError(f"expected an image in {name!r} that becomes 8 bits per channel, got {error}") from error
    except UnidentifiedImageError as error:  # Pillow would name a buffer in memory
        raise BadFileError(
            f"expected an image in {name!r}, got: no image format that is read ({READ}); convert, {_MEND}"
        ) from error
    except _BROKEN as error:
        raise BadFileError(f"expected an image in {name!r}, got: {error}; {_MEND}") from error


def _is_grey(image: Image.Image) -> bool:
    return image.mode in _GREY_MODES or image.mode[0] in "IF"


def _opaque(image: Image.Image, background: str, mode: str) -> Image.Image:
    """Lay an image on its background where it is transparent, and return it as grey or coloured."""
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, background), layer).convert("RGB")
    try:
        return image.convert(mode)
    except ValueError as error:
        raise UnsupportedError(f"colours of the mode {image.mode}; convert it to RGB or grey") from error


def _trimmed(image: Image.Image, darkest: int) -> Image.Image:
    """Cut off rows and columns at the edges that have no brighter pixel, unless that leaves nothing."""
    values = np.asarray(image)
    bright = values.reshape(*values.shape[:2], -1).max(2) > darkest
    rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
    if not len(rows):
        return image
    return image.crop((int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def _of_bytes(image: Image.Image) -> Image.Image:
    """Scale values of more than 8 bits to 0 to 255."""
    if image.mode[0] not in "IF":
        return image
    allowed = _stated(image) or _Range(0.0, 1.0 if image.mode == "F" else _largest(image))
    values: Float64[NDArray[Any], "H W"] = np.asarray(image).astype(np.float64)
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    if not (allowed.low <= low <= high <= allowed.high):  # NaN, too
        raise UnsupportedError(
            f"values from {low:g} to {high:g} where {allowed.low:g} to {allowed.high:g} are expected; scale them, or "
            "store them as 16-bit integers or as a TIFF that states its range (SMinSampleValue, SMaxSampleValue)"
        )
    scaled = np.rint((values - allowed.low) * (255 / (allowed.high - allowed.low)))
    return Image.fromarray(scaled.astype(np.uint8))


def _stated(image: Image.Image) -> _Range | None:
    """Return the range of values that a TIFF states."""
    tags = getattr(image, "tag_v2", {})

    def first(numbers: tuple[int, ...]) -> float | None:
        stated = next((tags[number] for number in numbers if number in tags), None)
        return None if stated is None else float(stated[0] if isinstance(stated, tuple) else stated)

    low, high = first(_LEAST), first(_MOST)
    if high is None:
        return None
    stated = _Range(0.0 if low is None else low, high)
    return stated if stated.low < stated.high else None


def _largest(image: Image.Image) -> float:
    """Return the largest value of an image of integers."""
    tags = getattr(image, "tag_v2", {})
    bits, form = (tags.get(number, (default,))[0] for number, default in ((_BITS, 16), (_FORM, 1)))
    if bits > 16:
        raise UnsupportedError(f"{bits}-bit integers without a stated range; store them as 16 bits")
    return float(2 ** (bits - (form == _SIGNED)) - 1)
