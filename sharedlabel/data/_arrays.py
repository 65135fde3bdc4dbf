"""Named arrays of a .npz or .safetensors file, read as plain data: no pickles, nothing larger than the file says."""

from __future__ import annotations

import contextlib
import math
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import safetensors
import torch
from numpy.lib import format as npy
from numpy.typing import NDArray

from sharedlabel.data._source import readable
from sharedlabel.errors import DataError, first_line
from sharedlabel.machine import memory

SUFFIXES = (".npz", ".safetensors")
_MEMBERS = 1000  # arrays of a file


def names(path: Path) -> list[str]:
    """Return the names of the arrays of a file.

    Raises:
        DataError: it cannot be read, or is of another format.
    """
    if path.suffix not in SUFFIXES:
        raise DataError(f"arrays: expected a file that ends in {' or '.join(SUFFIXES)}, got {path}; save it as one")
    with readable(path):
        if not path.is_file():
            kind = "a folder" if path.is_dir() else "a pipe or device" if path.exists() else "nothing"
            raise DataError(f"arrays: expected a file, got {kind} at {path}; check the path")
    with _reading(path):
        listed = _npz_names(path) if path.suffix == ".npz" else _safetensors_names(path)
    if len(listed) > _MEMBERS:
        raise DataError(f"arrays: expected at most {_MEMBERS} arrays in {path}, got {len(listed)}; keep what is needed")
    return listed


def read(path: Path, wanted: Collection[str]) -> dict[str, NDArray[Any]]:
    """Return arrays of a file by name; floats of a .safetensors file become `float32`.

    Raises:
        DataError: one cannot be read, holds objects, or is not of the size that the file says.
        ConfigError: they do not fit into memory.
    """
    with _reading(path):
        if path.suffix == ".npz":
            with zipfile.ZipFile(path) as archive:
                return {name: _member(path, archive, name) for name in wanted}
        with safetensors.safe_open(path, framework="pt") as tensors:
            return {name: _tensor(path, tensors.get_tensor(name)) for name in wanted}


def _npz_names(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def _safetensors_names(path: Path) -> list[str]:
    with safetensors.safe_open(path, framework="pt") as tensors:
        return list(tensors.keys())


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what libraries say of a damaged file into a `DataError`."""
    try:
        yield
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, safetensors.SafetensorError) as error:
        raise DataError(
            f"arrays: expected a file of arrays, got {first_line(error)} in {path}; write it again, with np.savez or "
            "safetensors"
        ) from error


def _member(path: Path, archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    """Read an array of a .npz file whose header is checked against the member's size before memory is taken."""
    entry = archive.getinfo(f"{name}.npy")
    _fit(path, name, entry.file_size)
    with archive.open(entry) as member:
        version = npy.read_magic(member)
        header = npy.read_array_header_1_0(member) if version == (1, 0) else npy.read_array_header_2_0(member)
        shape, dtype = header[0], header[2]
    if dtype.hasobject:
        raise DataError(
            f"arrays: expected numbers or texts as {name!r} in {path}, got Python objects, which are pickled; save an "
            "array of another dtype, such as str"
        )
    if math.prod(shape) * dtype.itemsize > entry.file_size:
        raise DataError(f"arrays: expected {name!r} whole in {path}, got a part of its {shape}; write the file again")
    with archive.open(entry) as member:
        array: NDArray[Any] = npy.read_array(member, allow_pickle=False)
    return array


def _tensor(path: Path, tensor: torch.Tensor) -> NDArray[Any]:
    _fit(path, "a tensor", tensor.nbytes)
    array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def _fit(path: Path, name: str, size: int) -> None:
    memory.check(f"data.path: {name} of {path.name}", 2 * size, "keep fewer instances, or smaller ones")
