"""Where a grid computes."""

from __future__ import annotations

import torch

from sharedlabel.config.sections import TrainerConfig
from sharedlabel.machine import devices


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    return devices.named(config.accelerator)
