"""How image files become instances; it needs no torch, nor do processes that only decode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Decoding:
    """How image files become instances.

    Attributes:
        size: side in pixels of the square that is cut from the centre and scaled; None leaves the image as it is.
        channels: 1 to make images grey, 3 to make them coloured, None for what the file has.
        background: what shows through where an image is transparent.
        trim: before anything is cut or scaled, rows and columns at the edges whose pixels are all at most as bright as
            this, from 0 to 255, are cut off; None leaves them.
    """

    size: int | None = None
    channels: int | None = None
    background: Literal["white", "black"] = "white"
    trim: int | None = None
