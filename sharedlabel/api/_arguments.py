"""Arguments that several functions of the API take, each refused in one sentence where it is something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sharedlabel.errors import CompressionError, ConfigError, home
from sharedlabel.machine import devices


def module(given: Any) -> nn.Module:
    """Refuse what is no torch module.

    Raises:
        CompressionError: with what it is.
    """
    if not isinstance(given, nn.Module):
        raise CompressionError(f"expected a torch module, got a {type(given).__name__}; pass the network itself")
    return given


def path(given: Any, what: str) -> Path:
    """Return a path in which `~` stands for a home folder.

    Args:
        given: text, or a path.
        what: what lies there.

    Raises:
        ConfigError: it is none.
    """
    if not isinstance(given, str | os.PathLike):
        raise ConfigError(f"expected the path of {what}, got a {type(given).__name__}; pass it as text")
    return home(os.fspath(given))


def device(given: Any) -> torch.device:
    """Return the device to compute on.

    Args:
        given: as torch names it, such as `cpu` or `cuda:1`; `auto` is the GPU, if there is one.

    Raises:
        ConfigError: there is none of that name here.

    >>> device("cpu")
    device(type='cpu')
    """
    try:
        chosen = devices.named(given)
        torch.zeros(1, device=chosen).item()
    except (AssertionError, NotImplementedError, RuntimeError, TypeError) as error:
        raise ConfigError(
            f"device: expected a device of torch that is here, such as 'cpu' or 'cuda', or 'auto', got {given!r}; "
            "choose another"
        ) from error
    return chosen
