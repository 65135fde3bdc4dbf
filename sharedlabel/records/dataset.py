"""What results say of the data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class ClassCount:
    """How much a split has of a class.

    Attributes:
        split: `backbone`, `aggregator`, `validation` or `test`.
        label: name of the class.
        images: how many it has.
        groups: how many groups these come from; None where the data has none.
    """

    split: str
    label: str
    images: int
    groups: int | None


@dataclass(frozen=True)
class DatasetFacts:
    """What one must know of the data to give a trained network new images and to read its answers.

    Attributes:
        class_names: names of the labels, in the order of logits.
        image_shape: channels, height and width of an instance.
        dtype: type of its values, `uint8` or `float32`.
        size: side in pixels of the square that was cut from the centre of every image file and scaled; None if images
            were taken as they are.
        channels: channels that image files were converted to; None if they were taken as they are.
        prior: class prior of tuples.
        images: how many each split has.
        groups: how many groups these come from; empty where the data has none.
        background: what shows through where an image file is transparent.
        trim: brightness up to which the edges of an image file are cut off; None where they are not.
        counts: images and groups of every class in every split.
        remarks: what one should know of the data before trusting numbers, a sentence each.
        skipped: name of each file that was left out although it seemed an image, and why.
        dropped: groups smaller than n, by split and n, under protocols whose tuples stay within a group: they count at
            the n that they reach, or have no tuples, as `evaluation.groups_smaller_than_n` says.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    dtype: str
    size: int | None
    channels: int | None
    prior: tuple[float, ...]
    images: dict[str, int] = field(default_factory=dict)
    groups: dict[str, int] = field(default_factory=dict)
    background: Literal["white", "black"] = "white"
    trim: int | None = None
    counts: tuple[ClassCount, ...] = ()
    remarks: tuple[str, ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    dropped: dict[str, dict[str, int]] = field(default_factory=dict)
