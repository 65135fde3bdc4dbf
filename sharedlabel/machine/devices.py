"""Devices of torch by the names that users give them."""

from __future__ import annotations

import torch


def named(name: str | torch.device) -> torch.device:
    """Return a device.

    Args:
        name: as torch names it, such as `cpu` or `cuda:1`; `auto` is the GPU if there is one, else the CPU; `gpu` is
            the GPU.

    Raises:
        RuntimeError: torch knows none of that name.

    >>> named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device("cuda" if name == "gpu" else name)
