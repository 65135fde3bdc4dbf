"""Magnitude pruning removes the smallest weights.

    pruners: [{name: magnitude, scope: layer}]

The paper sets a threshold for each layer by hand, in standard deviations of its weights, prunes and retrains
repeatedly, and prunes the classifier too. Here one threshold meets the ratio exactly, at once unless the schedule is
iterative.

Reference: Han, Pool, Tran & Dally, "Learning both Weights and Connections for Efficient Neural Networks" (2015).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._scores import Scope, magnitudes

STRUCTURED = False
NESTED = True
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Config:
    """Options of magnitude pruning.

    Args:
        scope: `global` compares all prunable weights, `layer` removes the same share of every layer.
    """

    scope: Scope = "global"


def scores(backbone: Backbone, config: Config, context: Context) -> Mapping[str, Tensor]:
    """Return the absolute value of every prunable weight, by layer; higher is kept.

    Args:
        backbone: the network, usually trained.
        config: not used.
        context: not used.
    """
    del config, context
    return magnitudes(backbone)
