"""What is handed to other processes, with arrays that nobody copies.

`dumps` is for processes of this machine: a tensor that was opened by `opened` becomes its path, and a large one that
lies in memory is written to a folder first, so that every process maps the same file. `packed` is for other machines:
tensors come out as arrays, for something that carries these well. What `multiprocessing` hands on, as to the ranks of
a training on several devices, is pickled by neither; there, too, an opened tensor is its path, whatever holds it.
"""

from __future__ import annotations

import io
import pickle
import uuid
import warnings
from collections.abc import Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor
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
    _places[tensor] = path.absolute()
    ForkingPickler.register(Tensor, _reduced)
    return tensor


def _reduced(tensor: Tensor) -> Any:
    """Return how another process gets a tensor: by its path, or as torch hands it on, in shared memory."""
    return (opened, (_places[tensor],)) if tensor in _places else reduce_tensor(tensor)


def dumps(what: Any, folder: Path | None) -> bytes:
    """Pickle an object for another process of this machine.

    Args:
        what: to hand on.
        folder: receives large tensors, and has to stay as long as the object is read; None leaves them in what is
            returned.

    Raises:
        OSError: a tensor cannot be written.
    """
    written = io.BytesIO()
    _Pickler(written, folder).dump(what)
    return written.getvalue()


def packed(what: Any) -> tuple[bytes, list[NDArray[Any]]]:
    """Pickle an object without its large tensors, and return these beside it.

    >>> content, arrays = packed({"images": torch.zeros(1 << 20)})
    >>> len(content) < 1000, arrays[0].shape
    (True, (1048576,))
    >>> unpacked(content, arrays)["images"].shape
    torch.Size([1048576])
    """
    written = io.BytesIO()
    packer = _Packer(written)
    packer.dump(what)
    return written.getvalue(), packer.arrays


def unpacked(content: bytes, arrays: Sequence[NDArray[Any]]) -> Any:
    """Return what was packed; its large tensors are the arrays, which may be read only."""
    return _Unpacker(io.BytesIO(content), arrays).load()


def _large(one: Any) -> bool:
    return isinstance(one, Tensor) and one.numel() * one.element_size() >= LARGE


class _Packer(pickle.Pickler):
    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.arrays: list[NDArray[Any]] = []

    def persistent_id(self, one: Any) -> int | None:
        """Return the number of a large tensor among the arrays."""
        if not _large(one):
            return None
        self.arrays.append(one.numpy())
        return len(self.arrays) - 1


class _Unpacker(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, arrays: Sequence[NDArray[Any]]) -> None:
        super().__init__(file)
        self.arrays = arrays

    def persistent_load(self, number: Any) -> Tensor:
        """Return a large tensor."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not writable.*")  # nobody writes into data
            return torch.from_numpy(self.arrays[number])


class _Pickler(pickle.Pickler):
    def __init__(self, file: io.BytesIO, folder: Path | None) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self.folder = folder

    def reducer_override(self, one: Any) -> Any:
        """Return how a tensor is opened again; everything else is pickled as usual."""
        if not isinstance(one, Tensor):
            return NotImplemented
        if one not in _places and _large(one) and self.folder is not None:
            path = self.folder / f"{uuid.uuid4().hex}.npy"
            np.save(path, one.numpy(), allow_pickle=False)
            return opened, (path,)
        return (opened, (_places[one],)) if one in _places else NotImplemented
