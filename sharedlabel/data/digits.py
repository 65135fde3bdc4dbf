"""Handwritten digits that ship inside scikit-learn: 1,797 real images, no network, the embedded default.

Reference: Alpaydin & Kaynak, "Optical Recognition of Handwritten Digits" (UCI, 1998).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

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
    # Imported here because it takes a second, which `--help` need not pay.
    from sklearn.datasets import load_digits  # noqa: PLC0415

    bunch = load_digits()
    ink = torch.from_numpy(bunch.images)  # 0 to 16
    images = (ink * (255 / 16)).round().to(torch.uint8)[:, None]
    labels = torch.from_numpy(bunch.target).to(torch.int64)
    names = tuple(str(digit) for digit in bunch.target_names)
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
