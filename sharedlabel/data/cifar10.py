"""CIFAR-10: 60,000 colour photos of 32x32 pixels in ten classes.

Reference: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharedlabel.data import _torchvision
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """CIFAR-10.

    Args:
        download: fetch the files if they are absent.
    """

    download: bool = False


def load(config: Config, root: Path) -> Dataset:
    """Load the training and the test images.

    Args:
        config: options of this data set.
        root: folder of the downloaded files.
    """
    return _torchvision.load("cifar10", "CIFAR10", root, config.download)
