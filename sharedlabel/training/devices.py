"""Where a grid computes."""

from __future__ import annotations

import torch

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.machine import devices
from sharedlabel.training import watchers


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    return devices.named(config.accelerator)


def takes_several(config: TrainerConfig) -> bool:
    """Tell whether several networks can be trained there in one program: nobody watches one of them.

    Programs of torch.compile, memory formats and what Lightning's options do are those of a single network.
    """
    single = config.devices != 1 or config.compile or config.channels_last or config.options
    return not single and not watchers.anybody(config) and device(config).type in ("cpu", "cuda")
