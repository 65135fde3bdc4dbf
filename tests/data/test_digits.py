from __future__ import annotations

from pathlib import Path

import torch
from sklearn.datasets import load_digits

from sharedlabel.data import digits


def test_pixels_are_scikit_learns_scaled_to_a_byte() -> None:
    dataset = digits.load(digits.Config(), Path("unused"))
    bunch = load_digits()
    assert dataset.images.shape == (1797, 1, 8, 8)
    assert dataset.images.dtype == torch.uint8
    assert torch.equal((dataset.images[:, 0].double() / 255 * 16).round(), torch.from_numpy(bunch.images))
    assert (int(dataset.images.min()), int(dataset.images.max())) == (0, 255)
    assert dataset.labels.tolist() == bunch.target.tolist()
    assert dataset.class_names == tuple("0123456789")
    assert dataset.holdout is None
    assert dataset.groups is None
