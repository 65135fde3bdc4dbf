"""Arrays that lie in files are handed to other processes as paths, so that nobody copies them.

`dumps` pickles whatever is handed on. A tensor that was opened by `opened` becomes its path, and a large one that lies
in memory is written to a folder first. Every process that reads it maps the same file.
"""

from __future__ import annotations

import io
import pickle
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

LARGE = 1 << 20  # bytes from which a tensor is written to a file
_places = WeakIdKeyDictionary()  # of tensors that lie in files, by identity


def opened(path: Path) -> Tensor:
    """Map a .npy file into memory; what is written into the tensor stays in this process.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no array, or one of Python objects.
    """
    # Copy on write: torch wants a writable array, the file stays as it is.
    tensor = torch.from_numpy(np.load(path, mmap_mode="c", allow_pickle=False))
    _places[tensor] = path
    return tensor


def dumps(what: Any, folder: Path) -> bytes:
    """Pickle an object for another process of this machine.

    Args:
        what: to hand on.
        folder: receives large tensors; it has to stay as long as the object is read.

    Raises:
        OSError: a tensor cannot be written.
    """
    written = io.BytesIO()
    _Pickler(written, folder).dump(what)
    return written.getvalue()


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, folder: Path) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.folder = folder

    def reducer_override(self, one: Any) -> Any:
        """Return how a tensor is opened again; everything else is pickled as usual."""
        if not isinstance(one, Tensor):
            return NotImplemented
        if one not in _places and one.numel() * one.element_size() >= LARGE:
            path = self.folder / f"{uuid.uuid4().hex}.npy"
            np.save(path, one.numpy(), allow_pickle=False)
            return opened, (path,)
        return (opened, (_places[one],)) if one in _places else NotImplemented
