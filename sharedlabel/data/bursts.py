"""Bursts are several dependent views of one image, made from any data set of images.

    data: {name: bursts, base: digits, views: 4}

A view of image i is `clip(gain_v * shift_v(x_i) + light_v + noise_v)` with a grey square over part of it. The views of
a burst share the image; the shift, the light, the noise and the square are drawn anew for each. So instances of one
burst are dependent given the label, and the more so the smaller `jitter` is. Tuples of the `grouped` protocol come from
one burst, tuples of `iid` from anywhere in the class. The transform is ours.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from jaxtyping import Int64, UInt8
from pydantic import Field, NonNegativeInt
from torch import Tensor

from sharedlabel import rng
from sharedlabel.config import nested, resolve
from sharedlabel.config.schema import Depth, Fraction
from sharedlabel.data import _checks
from sharedlabel.data._shuffle import joint_cells, rank_within, shuffle_within
from sharedlabel.data.splits import sides
from sharedlabel.errors import ConfigError, DataError
from sharedlabel.machine import memory
from sharedlabel.plugins import load as plugin
from sharedlabel.types import Dataset, Images

BATCH = 4096  # views per step, so that floating point copies stay small


@dataclass(frozen=True)
class Config:
    """Bursts of views of the images of another data set.

    Args:
        base: data set whose images are taken, by name or as a mapping with its options; `uint8` images only.
        images: images taken of each class and side of the base's own test split, at random; 0 takes all.
        views: views of each image, at least 1.
        sources: images of one class that share a group; 1 makes a burst of one image, more make weaker dependence.
        jitter: scale of everything that differs between views, in [0, 1]; 0 repeats the image.
        shift: largest shift as a share of the side, at jitter 1.
        light: standard deviation of gain, and of light as a share of the range, at jitter 1.
        noise: standard deviation of the noise as a share of the range, at jitter 1.
        cover: side of the grey square as a share of the image's, at jitter 1.
        seed: seed of the choice of images and of the views.
    """

    base: str | dict[str, Any] = nested("data", "digits")
    images: NonNegativeInt = 0
    views: Depth = 8
    sources: Depth = 1
    jitter: Fraction = 0.5
    shift: Fraction = 0.25
    light: Annotated[float, Field(ge=0, le=1000)] = 0.4
    noise: Annotated[float, Field(ge=0, le=1000)] = 0.4
    cover: Fraction = 0.75
    seed: NonNegativeInt = 0


def load(config: Config, root: Path) -> Dataset:
    """Make the bursts; they are held in memory.

    Args:
        config: options of this data set.
        root: handed to the base data set.

    Returns:
        `uint8` images `[images * views, C, H, W]`; each group holds `sources` images of one class, `views` times each.
        Images that fill no group are left out.

    Raises:
        ConfigError: the base is this data set, or one that does not exist.
        DataError: the base has no `uint8` images, or a class with fewer images than a group needs.
    """
    chosen = resolve("data", config.base)
    if chosen.name == __name__.rpartition(".")[2]:
        raise ConfigError(
            f"bursts: expected another data set as base, got {chosen.name!r}; name the one with the images"
        )
    base: Dataset = plugin("data", chosen.name).load(chosen.config, root)
    if base.images.dtype != torch.uint8:
        raise DataError(
            f"bursts: expected uint8 images, got {str(base.images.dtype).removeprefix('torch.')} of {base.name!r}; "
            "choose a data set of images as base"
        )
    taken, groups = _choose(base, config)
    memory.check(
        f"bursts: {len(taken)} images in {config.views} views",
        len(taken) * config.views * math.prod(base.image_shape),
        "lower views or images",
    )
    views = taken.repeat_interleave(config.views)
    images = _views(base.images, views, config)
    labels, groups = base.labels[views], groups.repeat_interleave(config.views)
    return _checks.validate(
        dataclasses.replace(
            base,
            name=f"bursts of {base.name}",
            images=images,
            labels=labels,
            groups=groups,
            holdout=None if base.holdout is None else base.holdout[views],
            validation=None if base.validation is None else base.validation[views],
            group_names=None,
            instance_names=None,
            content=None,
            fingerprint=_checks.fingerprint(images, labels, base.class_names, groups),
        )
    )


def _choose(base: Dataset, config: Config) -> tuple[Int64[Tensor, "m"], Int64[Tensor, "m"]]:
    """Return the positions of the images taken, whole groups only, and the group of each."""
    cells = joint_cells(sides(base), base.labels)
    order = shuffle_within(cells, 1, rng.generator(config.seed, "bursts", "images"))[0]
    sizes = torch.bincount(cells)
    wanted = sizes.clamp(max=config.images) if config.images else sizes
    whole = wanted // config.sources * config.sources
    if int(whole.min()) == 0:
        name = base.class_names[int(base.labels[order[int(sizes[: int(whole.argmin())].sum())]])]
        raise DataError(
            f"bursts: expected at least {config.sources} images of every class, got {int(wanted.min())} of {name!r}; "
            "lower sources or raise images"
        )
    taken = order[rank_within(sizes) < whole.repeat_interleave(sizes)]
    return taken, torch.arange(len(taken)) // config.sources


def _views(images: Images, positions: Int64[Tensor, "m"], config: Config) -> UInt8[Tensor, "m C H W"]:
    generator = rng.generator(config.seed, "bursts", "views")
    return torch.cat([_view(images[part], config, generator) for part in positions.split(BATCH)])


def _view(images: UInt8[Tensor, "b C H W"], config: Config, generator: torch.Generator) -> UInt8[Tensor, "b C H W"]:
    """Return one view of each image: shifted with its border repeated, lit, covered and noisy."""
    count, _, height, width = images.shape
    amount = config.jitter
    rows = _shifted(height, round(amount * config.shift * height), count, generator)
    columns = _shifted(width, round(amount * config.shift * width), count, generator)
    batch, channels = torch.arange(count)[:, None, None, None], torch.arange(images.shape[1])[None, :, None, None]
    moved = images[batch, channels, rows[:, None, :, None], columns[:, None, None, :]].float() / 255
    gain, light = amount * config.light * torch.randn(2, count, 1, 1, 1, generator=generator)
    lit = (1 + gain) * moved + light
    covered = _covered(lit, round(amount * config.cover * min(height, width)), generator)
    noisy = covered + amount * config.noise * torch.randn(covered.shape, generator=generator)
    return (255 * noisy.clamp(0, 1)).round().to(torch.uint8)


def _shifted(size: int, most: int, count: int, generator: torch.Generator) -> Int64[Tensor, "b size"]:
    """Return the source positions along one axis, moved by -most to most pixels; the border repeats."""
    offsets = torch.randint(-most, most + 1, (count, 1), generator=generator)
    return (torch.arange(size) + offsets).clamp(0, size - 1)


def _covered(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Cover a square of each image with mid grey, somewhere inside."""
    count, _, height, width = images.shape
    top = torch.randint(0, height - side + 1, (count, 1), generator=generator)
    left = torch.randint(0, width - side + 1, (count, 1), generator=generator)
    rows = (torch.arange(height) >= top) & (torch.arange(height) < top + side)
    columns = (torch.arange(width) >= left) & (torch.arange(width) < left + side)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.5)
