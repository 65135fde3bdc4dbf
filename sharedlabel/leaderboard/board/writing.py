"""Files and folders that are replaced whole or not at all, and what stands for their content."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
from torch import Tensor

from sharedlabel.files import leases, together


def replace_file(path: Path, content: bytes) -> None:
    """Write a file, whole or not at all."""
    # Beside its folder: what a kill leaves is then no file among those of an entry.
    leases.sweep(path.parent.parent, leases.MARK)
    with leases.claimed(path.parent.parent, leases.MARK) as beside:
        partial = beside / path.name
        partial.write_bytes(content)
        together.flush(partial)
        partial.replace(path)


def replace_folder(folder: Path, files: Mapping[str, bytes]) -> None:
    """Put a folder with these files in the place of another, whole or not at all.

    Args:
        folder: may be there or not.
        files: content by place in it.
    """

    def fill(made: Path) -> None:
        for name, content in files.items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_bytes(content)

    together.replace_folder(folder, fill)


def serialized(tensors: dict[str, Tensor]) -> tuple[bytes, str]:
    """Return the content of a file of tensors, and its sha256."""
    content = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()})
    return content, digest(content)


def digest(content: bytes) -> str:
    """Return the sha256 of some bytes."""
    return hashlib.sha256(content).hexdigest()
