"""Data sets that torchvision downloads, checks and reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sharedlabel.data import _checks
from sharedlabel.errors import DataError
from sharedlabel.types import Dataset


@dataclass(frozen=True)
class Config:
    """Options of a data set that torchvision downloads.

    Args:
        download: fetch files that are absent; their checksums are verified.
    """

    download: bool = False


def loader(name: str, kind: str) -> Callable[[Config, Path], Dataset]:
    """Return the `load` of a data set with its own test set.

    Args:
        name: what tables call it.
        kind: name of the class in `torchvision.datasets`.
    """

    def load(config: Config, root: Path) -> Dataset:
        """Load the training and the test images.

        Args:
            config: options of this data set.
            root: folder of the downloaded files.

        Raises:
            DataError: the files are absent, corrupt or cannot be downloaded.
        """
        return _load(name, kind, root, config.download)

    return load


def _load(name: str, kind: str, root: Path, download: bool) -> Dataset:
    train, test = (_read(name, kind, root, is_train, download) for is_train in (True, False))
    images = torch.cat([_channels_first(train.data), _channels_first(test.data)])
    labels = torch.cat([torch.as_tensor(part.targets, dtype=torch.int64) for part in (train, test)])
    names = tuple(map(str, train.classes))
    return _checks.validate(
        Dataset(
            name=name,
            images=images,
            labels=labels,
            class_names=names,
            groups=None,
            holdout=torch.arange(labels.numel()) >= len(train.targets),
            fingerprint=_checks.fingerprint(images, labels, names),
        )
    )


def _read(name: str, kind: str, root: Path, train: bool, download: bool) -> Any:
    # Imported here because it takes seconds, which `--help` need not pay.
    import torchvision  # noqa: PLC0415

    source = getattr(torchvision.datasets, kind)
    try:
        with warnings.catch_warnings():
            # The files were pickled by a numpy that wrote flags as integers; the reader can do nothing about it.
            warnings.filterwarnings("ignore", category=np.exceptions.VisibleDeprecationWarning)
            return source(root, train=train, download=download)
    except Exception as error:  # absent, corrupt and offline raise everything from URLError to UnpicklingError
        raise DataError(_advice(name, source, root, download, error)) from error


def _advice(name: str, source: Any, root: Path, download: bool, error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if not download:
        return (
            f"expected the files of {name} in {root.absolute()}, got: {reason}; set `download: true` for this data "
            "set, or choose another root"
        )
    archives, folder = _archives(source, root)
    return (
        f"expected to download {name}, got: {reason}; this machine is offline or the server is down: put "
        f"{archives} into {folder.absolute()} by hand and run again (they are unpacked and checked from there)"
    )


def _archives(source: Any, root: Path) -> tuple[str, Path]:
    if hasattr(source, "resources"):
        return ", ".join(file for file, _ in source.resources), root / source.__name__ / "raw"
    return str(source.url), root


def _channels_first(images: Any) -> Tensor:
    """Return `uint8 [N C H W]` from grey `[N H W]` or colour `[N H W C]`."""
    pixels = torch.as_tensor(images)
    return pixels[:, None] if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2).contiguous()
