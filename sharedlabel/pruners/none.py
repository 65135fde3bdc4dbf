"""No compression: the dense network."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context, check_ratio
from sharedlabel.pruners._masks import prunable

STRUCTURED = False
NESTED = True
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """No options."""


def ceiling(backbone: Backbone, config: Config) -> float:
    """Return 1: nothing is removed."""
    del backbone, config
    return 1.0


def prune(backbone: Backbone, ratio: float, config: Config, context: Context) -> Backbone:
    """Copy the network.

    Args:
        backbone: the network.
        ratio: has to be 1.
        config: no options.
        context: not used.

    Raises:
        CompressionError: the ratio is not 1, or there are weights that cannot be counted (`prunable`).
    """
    del context
    check_ratio(ratio, ceiling(backbone, config), "this pruner removes nothing")
    prunable(backbone)  # what no pruner and no count can take is refused before it is trained
    return copy.deepcopy(backbone)
