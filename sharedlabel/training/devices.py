"""Where a grid computes."""

from __future__ import annotations

import torch

from sharedlabel.config.sections import TrainerConfig


def device(config: TrainerConfig) -> torch.device:
    """Return the device that features are computed on: the one the Trainer would use first."""
    name = config.accelerator
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name in {"gpu", "cuda"}:
        return torch.device("cuda")
    return torch.device(name)
