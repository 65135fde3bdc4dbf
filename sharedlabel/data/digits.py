"""Handwritten digits that ship inside scikit-learn: 1,797 real images, no network, the embedded default.

Reference: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998).
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from sharedlabel.data import _checks
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """The 8x8 grey digits; nothing to choose."""


def load(config: Config, root: Path) -> Dataset:
    """Load the digits.

    Args:
        config: options of this data set.
        root: not used, the images come with scikit-learn.

    Returns:
        1,797 grey images of 8x8 pixels in ten classes, without a test set of their own.
    """
    del config, root
    table = _table()
    images = torch.from_numpy(table[:, :-1] * (255 / 16)).round().to(torch.uint8).view(-1, 1, 8, 8)  # ink is 0 to 16
    labels = torch.from_numpy(table[:, -1]).to(torch.int64)
    names = tuple(str(digit) for digit in range(10))
    return _checks.validate(
        Dataset(
            name="digits",
            images=images,
            labels=labels,
            class_names=names,
            groups=None,
            holdout=None,
            fingerprint=_checks.fingerprint(images, labels, names),
        )
    )


def _table() -> NDArray[np.float64]:
    """Read the file of scikit-learn's `load_digits`, 64 pixels and a label a line; to import that takes a second."""
    package = importlib.util.find_spec("sklearn")
    folder = Path((package and package.origin) or "sklearn").parent
    return np.loadtxt(folder / "datasets" / "data" / "digits.csv.gz", delimiter=",")
