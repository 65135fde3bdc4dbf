"""Any folder or zip of images, as `split/class/file` or `class/file`.

The splits are the folders `train` or `training` and `test` or `testing`, in any case of letters. Without a test folder,
one named `val`, `valid`, `validation` or `dev` is the test set; beside a test folder it is refused, because validation
is split from train by the configuration.

Images are decoded once, turned upright as their EXIF data say, into a memory-mapped array; later loads read it and
never decode. A zip is read as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from sharedlabel import sources
from sharedlabel.data import _checks, _decode
from sharedlabel.data._layout import Layout, arrange, group_ids
from sharedlabel.data._source import Source
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset, Decoding


@dataclass(frozen=True)
class Config:
    """A folder or zip of images.

    Args:
        path: folder or zip with `train/class/file` and `test/class/file`, or `class/file` to have it split; `~` is
            the home folder. Without `test`, a folder `val`, `valid`, `validation` or `dev` is the test set.
        size: side in pixels of the square that is cut from the centre of every image and scaled; null when all images
            have one size already.
        channels: 1 for grey, 3 for colour; null for what the files have.
        groups: CSV with the columns path and group, inside the folder or zip or beside it, or `level:K` for the K-th
            folder of the path, counted from 1; null without groups.
    """

    path: str = ""
    size: int | None = None
    channels: Literal[1, 3] | None = None
    groups: str | None = None


def load(config: Config, root: Path) -> Dataset:
    """Load the images, decoding them if this content was never decoded before.

    Args:
        config: options of this data set.
        root: folder that receives the decoded images.

    Raises:
        DataError: the path, the layout, an image or the groups cannot be used; the message names the file.
    """
    _check(config)
    path = Path(config.path).expanduser()
    with Source(path) as source:
        layout = arrange(source)
        names = [member.name for member in layout.members]
        groups = None if config.groups is None else group_ids(source, layout.members, config.groups)
        pixels = _pixel_fingerprint(layout, config)

        def images() -> Iterator[NDArray[np.uint8]]:
            return _decode.decode_all(names, source.read, config.size, config.channels)

        read = _sha256([pixels, sources.digest(_decode.__name__, "decode_all")])  # decoded anew by other code
        decoded = _decode.cached(root / "imagefolder", read, len(names), images)
    return _checks.validate(
        Dataset(
            name=path.absolute().stem,
            images=decoded,
            labels=torch.tensor(layout.labels),
            class_names=layout.class_names,
            groups=None if groups is None else torch.tensor(groups),
            holdout=None if layout.holdout is None else torch.tensor(layout.holdout),
            fingerprint=_sha256([pixels, groups]),
            decoding=Decoding(config.size, config.channels),
        )
    )


def _pixel_fingerprint(layout: Layout, config: Config) -> str:
    """Return what the pixels, their order and their labels depend on: content, never the path or dates."""
    files = [(member.name, member.crc, member.size) for member in layout.members]
    return _sha256([_decode.VERSION, config.size, config.channels, files])


def _sha256(record: list[object]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _check(config: Config) -> None:
    if not config.path:
        raise DataError("imagefolder: expected the path of a folder or zip of images, got none; set `path`")
    if config.size is not None and config.size < 1:
        raise DataError(f"imagefolder: expected a size of at least 1 pixel, got {config.size}; set it higher")
