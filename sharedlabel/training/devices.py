"""Where a grid computes, and how cuDNN does it there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.machine import devices
from sharedlabel.training import watchers


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    return devices.named(config.accelerator)


@contextlib.contextmanager
def tuned(config: TrainerConfig) -> Iterator[None]:
    """Let cuDNN look for the quickest convolutions in the block, where the configuration asks for it.

    >>> with tuned(TrainerConfig(accelerator="cpu", cudnn_benchmark=True)):
    ...     torch.backends.cudnn.benchmark
    False
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or (config.cudnn_benchmark and device(config).type == "cuda")
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def plain(config: TrainerConfig, small: bool = False) -> torch.device | None:
    """Return the device of a plain loop; None for several devices, and for what Lightning alone knows.

    Args:
        config: where and how.
        small: train on one device in full precision, as aggregators are.
    """
    alone = small or (config.devices == 1 and config.strategy == "auto")
    if not alone or config.options or config.accelerator not in ("auto", "cpu", "cuda", "gpu"):
        return None
    target = device(config)
    if target.type == "cuda":
        return target if torch.cuda.is_available() else None
    if config.precision == "16-mixed" and not small:
        return None
    return None if config.accelerator == "auto" and torch.backends.mps.is_available() else target


def takes_several(config: TrainerConfig) -> bool:
    """Tell whether several networks can be trained there in one program: nobody watches one of them.

    Programs of torch.compile and memory formats are those of a single network, and so is the scale of gradients of
    16 bits, by which an overflow in one network would cost all of them a step.
    """
    single = bool(config.compile) or config.channels_last or config.precision == "16-mixed"
    return not single and not watchers.anybody(config) and plain(config) is not None
