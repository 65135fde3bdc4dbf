"""The refit pool with a temperature for every number of instances, which is what the crafted LSTM starts from."""

from __future__ import annotations

from dataclasses import dataclass

from sharedlabel.aggregators import refit_pool
from sharedlabel.aggregators.refit_pool import RefitPool
from sharedlabel.types import SetShape


@dataclass(frozen=True)
class Config(refit_pool.Config):
    """Options of the refit pool.

    Attributes:
        tempered: multiply the evidence of k instances by b(k).
    """

    tempered: bool = True


def build(config: Config, shape: SetShape) -> RefitPool:
    """Build it for the widths of a backbone."""
    return RefitPool(config, shape)
