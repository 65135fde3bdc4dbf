"""Any folder or zip of images, as `split/class/file` or `class/file`.

    data: {name: imagefolder, path: my-images.zip, size: 32}

The splits are the folders `train` or `training`, `test` or `testing`, and `val`, `valid`, `validation` or `dev`, in any
case of letters. Without a test folder, the validation folder is the test set. Other files are left out, and counted.

Images are decoded once, turned upright as their EXIF data say, into a memory-mapped array; later loads read it and
never decode. A zip is read as it is. With `decoded: false` there is no such array: images are decoded once to check
them, and again whenever one is used.

Later loads read no file again that has the size and times that it had (`_identities.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from sharedlabel.code import digests
from sharedlabel.config.fields import added
from sharedlabel.data import _cache, _checks, _decode, _identities, _undecoded
from sharedlabel.data._layout import Layout, arrange, grouped, sides_of, strays_of
from sharedlabel.data._pass import Reader
from sharedlabel.data._source import Source, readable
from sharedlabel.decoding import Decoding
from sharedlabel.errors import DataError, home
from sharedlabel.machine import memory
from sharedlabel.types import Dataset, Images

CACHE = ".cache"  # below the root; hidden, so that no data set reads it


@dataclass(frozen=True)
class Config:
    """A folder or zip of images.

    Args:
        path: folder or zip with `train/class/file`, `test/class/file` and, if there is one, `val/class/file`, which are
            used as they are, or `class/file` to have it split; `~` is the home folder. Without `test`, a folder `val`,
            `valid`, `validation` or `dev` is the test set.
        size: side in pixels of the square that is cut from the centre of every image and scaled; null when all images
            have one size already.
        channels: 1 for grey, 3 for colour; null for what the files have.
        groups: CSV with the columns path and group, inside the folder or zip or beside it, or `level:K` for the K-th
            folder below the class folder, counted from 1; null without groups. A column position, such as the number of
            a frame, orders a group for tuples of the protocol `sequence`, which else follow the names of files.
        encoding: how the text of that CSV is encoded, such as utf-8, latin-1 or cp1252.
        background: what shows through where an image is transparent, `white` or `black`.
        trim: cut off dark edges first: rows and columns in which no pixel is brighter than this, from 0 to 255; needs
            `size`, since images have different sizes then. Null leaves them.
        on_bad_image: `error` stops at a file that cannot be read as an image; `skip` leaves it out and says so.
        decoded: keep a decoded copy of all images below the data root; false decodes an image again whenever it is
            used, where there is no room for a copy. Numbers are the same. Workers on other machines read the files at
            the same path.
    """

    path: str = ""
    size: int | None = None
    channels: Literal[1, 3] | None = None
    groups: str | None = None
    encoding: str = "utf-8"
    background: Literal["white", "black"] = "white"
    trim: Annotated[int, Field(ge=0, le=254)] | None = added(None)
    on_bad_image: Literal["error", "skip"] = "error"
    decoded: bool = added(True)


def load(config: Config, root: Path) -> Dataset:
    """Load the images, decoding them if this content was never decoded before.

    Args:
        config: options of this data set.
        root: folder that receives the decoded images, in `.cache`.

    Raises:
        DataError: the path, the layout, an image or the groups cannot be used; the message names the file.
    """
    path, folder = home(config.path), root / CACHE / "imagefolder"
    _check(config, path, folder.parent)
    decoding = Decoding(config.size, config.channels, config.background, config.trim)
    with Source(path) as source:
        layout = arrange(source)
        groups = None if config.groups is None else grouped(source, layout, config.groups, config.encoding)
        identities, content = _identities.look(source, layout.names, folder)
        pixels = _pixel_fingerprint(layout, identities, decoding)
        code = digests.digest(_decode.__name__, "decode_named")  # decoded anew by other code
        skip = config.on_bad_image == "skip"
        key = _sha256([pixels, code, *(["skip"] if skip else [])])
        read, least = Reader(source, decoding).all, (config.channels or 1) * (config.size or 0) ** 2
        stored = (
            _cache.cached(folder, key, layout.names, read, skip=skip, least=least)
            if config.decoded
            else _undecoded.checked(folder, key, layout.names, read, skip=skip)
        )
        tables = (config.groups, f"{layout.wrapper}{config.groups}")
        strays = strays_of([name for name in source.strays() if name not in tables])
    bad = {position for position, _ in stored.skipped}
    kept = torch.tensor([position for position in range(len(layout.names)) if position not in bad])
    names = tuple(layout.names[position] for position in kept.tolist())
    if isinstance(stored, _undecoded.Checked):
        images: Images = _undecoded.Undecoded(path, decoding, names, torch.tensor(identities)[kept], stored.image_shape)
    else:
        images = stored.images
    group_list, ids = _numbered(None if groups is None else groups.names)
    positions = None if groups is None else groups.positions
    skipped = tuple((layout.names[position], reason) for position, reason in stored.skipped)
    of_groups = None if ids is None else ids.tolist()
    of_files = [pixels, of_groups, *([sorted(bad)] if bad else []), *([positions] if positions else [])]
    return _checks.validate(
        Dataset(
            name=path.absolute().stem,
            images=images,
            labels=torch.tensor(layout.labels)[kept],
            class_names=layout.class_names,
            groups=None if ids is None else ids[kept],
            holdout=_side(layout, "test", kept),
            fingerprint=_sha256(of_files),
            decoding=decoding,
            validation=_side(layout, "validation", kept),
            group_names=group_list,
            instance_names=names,
            content=torch.tensor(content)[kept],
            remarks=(*sides_of(layout), *strays),
            skipped=skipped,
            positions=None if positions is None else torch.tensor(positions, dtype=torch.float64)[kept],
        )
    )


def _side(layout: Layout, side: str, kept: Tensor) -> Tensor | None:
    """Return which images are on a side, or None if none is."""
    if layout.sides is None or side not in layout.sides:
        return None
    return torch.tensor([own == side for own in layout.sides])[kept]


def _numbered(groups: tuple[str, ...] | None) -> tuple[tuple[str, ...] | None, Tensor | None]:
    """Return the sorted names of groups, and the number of each image's."""
    if groups is None:
        return None, None
    names = tuple(sorted(set(groups)))
    index_of = {name: index for index, name in enumerate(names)}
    return names, torch.tensor([index_of[name] for name in groups])


def _pixel_fingerprint(layout: Layout, identities: list[tuple[int, int]], decoding: Decoding) -> str:
    """Return what the pixels, their order and their labels depend on: content, never the path or dates."""
    files = [(name, *identity) for name, identity in zip(layout.names, identities, strict=True)]
    trimmed = [] if decoding.trim is None else [f"trim {decoding.trim}"]
    return _sha256([_decode.VERSION, decoding.size, decoding.channels, decoding.background, *trimmed, files])


def _sha256(record: Sequence[object]) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def _check(config: Config, path: Path, cache: Path) -> None:
    if not config.path:
        raise DataError("imagefolder: expected the path of a folder or zip of images, got none; set `path`")
    with readable(path):
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(cache))
    if inside:
        raise DataError(
            f"imagefolder: expected images of your own, got {path}, where decoded ones are kept; set `path`"
        )
    if config.size is None:
        if config.trim is not None:
            raise DataError("imagefolder: expected a size beside trim, got none; set `size`, such as 32")
        return
    if config.size < 1:
        raise DataError(f"imagefolder: expected a size of at least 1 pixel, got {config.size}; set it higher")
    needed = 2 * 3 * config.size**2  # of one image, while it is scaled
    memory.check(f"imagefolder: one image of size {config.size}", 2 * needed, "set a smaller size")
