"""Instances as small pictures that a page can hold."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from sharedlabel.types import Images

MOST = 16  # of one tuple
_SIDE = 48  # pixels, at most
_LEAST = 4  # pixels of a side: what is smaller are features
_PLAIN = 600  # bytes up to which a picture is stored without loss
_QUALITY = 70  # of larger ones


def pictures(images: Images, instances: Tensor) -> Iterator[str]:
    """Yield the first instances as `data:` addresses; nothing where they are no pictures of one or three channels.

    Args:
        images: of the data set, `[N C H W]`, uint8 or float32.
        instances: positions in it, `[n]`.
    """
    channels, height, width = images.shape[1:]
    if channels not in (1, 3) or min(height, width) < _LEAST:
        return
    shown = images[instances[:MOST]]
    for one in _bytes(shown):
        picture = Image.fromarray(one.squeeze(0).numpy() if channels == 1 else one.permute(1, 2, 0).numpy())
        picture.thumbnail((_SIDE, _SIDE))
        yield _address(picture)


def _bytes(images: Tensor) -> Tensor:
    """Return values from 0 to 255; those of floats are spread between the least and the largest."""
    if images.dtype == torch.uint8:
        return images
    low, high = images.amin(), images.amax()
    return ((images - low) / (high - low).clamp_min(1e-12) * 255).round().to(torch.uint8)


def _address(picture: Image.Image) -> str:
    """Write a picture as an address: small ones without loss."""
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    kind = "png"
    if file.tell() > _PLAIN:
        file, kind = io.BytesIO(), "webp"
        picture.save(file, "WEBP", quality=_QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
