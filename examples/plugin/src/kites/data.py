"""Drawings of kites, made up: squares that stand upright or on a corner, in noise; six of each kite.

A data set of your own files would read them here, below `root`. Arrays that you have already need no plugin:
`data: {name: arrays, path: mine.npz}`.
"""

from dataclasses import dataclass

import torch

from sharedlabel.data import Dataset, fingerprint, validate


@dataclass(frozen=True)
class Config:
    """Options.

    Args:
        kites: kites of each class.
        noise: standard deviation, where ink is 1.
        seed: of the drawings.
    """

    kites: int = 60
    noise: float = 0.5
    seed: int = 0


def load(config, root):
    """Draw the kites: 16 x 16 grey images in two classes, with the kites as groups."""
    del root
    generator = torch.Generator().manual_seed(config.seed)
    kites = torch.arange(2 * config.kites).repeat_interleave(6)
    labels = kites % 2
    grid = torch.arange(16.0) - 7.5
    down, across = grid[:, None].abs(), grid[None, :].abs()
    drawn = torch.stack([torch.maximum(down, across) < 5, down + across < 7]).float()  # [2 16 16]
    size = 0.6 + 0.8 * torch.rand(2 * config.kites, 1, 1, generator=generator)  # of a kite: how black it is
    images = size[kites] * drawn[labels]
    images = images + config.noise * torch.randn(images.shape, generator=generator)
    images = images[:, None]
    names = ("square", "diamond")
    return validate(
        Dataset(
            name="kites",
            images=images,
            labels=labels,
            class_names=names,
            groups=kites,
            holdout=None,
            fingerprint=fingerprint(images, labels, names, kites),
        )
    )
