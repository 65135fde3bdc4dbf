"""MNIST: 70,000 grey handwritten digits of 28x28 pixels in ten classes.

Reference: LeCun et al., "Gradient-Based Learning Applied to Document Recognition" (1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharedlabel.data import _torchvision
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """MNIST.

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
    return _torchvision.load("mnist", "MNIST", root, config.download)
