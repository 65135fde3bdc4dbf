"""Fashion-MNIST: 70,000 grey photos of clothes, 28x28 pixels, in ten classes.

Reference: Xiao, Rasul & Vollgraf, "Fashion-MNIST" (arXiv 1708.07747).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharedlabel.data import _torchvision
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """Fashion-MNIST.

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
    return _torchvision.load("fashion_mnist", "FashionMNIST", root, config.download)
