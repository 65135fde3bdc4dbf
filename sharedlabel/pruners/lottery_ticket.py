"""Lottery tickets: round by round the smallest trained weights are removed, and the others start again.

    pruners: [{name: lottery_ticket, schedule: {growth: 2, rewind: 0.1}}]

The rounds, and setting the survivors back to their early values, are the schedule's: see `iterative` and `rewind`. A
round's growth is that of the compression ratio, over all parameters.

The papers prune each layer by the same share in small networks, the classifier by half of it, and all layers together
in deep ones; here `scope` chooses, and the classifier stays.

References: Frankle & Carbin, "The Lottery Ticket Hypothesis: Finding Sparse, Trainable Neural Networks" (2019);
Frankle, Dziugaite, Roy & Carbin, "Stabilizing the Lottery Ticket Hypothesis" (2019) for rewinding to an early step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from sharedlabel.backbones._base import Backbone
from sharedlabel.config.sections import Schedule
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._scores import Scope, magnitudes

STRUCTURED = False
NESTED = True
NEEDS: frozenset[str] = frozenset()
# Every round leaves 80% of the parameters and sets their weights back to their initial values. The papers remove 20% of
# the weights that are left; here biases, normalisation and the classifier count too but stay, so that the share of
# prunable weights that a round removes rises from a little over 20%, steeply near the ceiling.
SCHEDULE = Schedule(when="iterative", growth=1.25, rewind=0.0)


@dataclass(frozen=True)
class Config:
    """Options of lottery tickets.

    Args:
        scope: `global` compares all prunable weights, `layer` removes the same share of every layer.
    """

    scope: Scope = "global"


def scores(backbone: Backbone, config: Config, context: Context) -> Mapping[str, Tensor]:
    """Return the absolute value of every prunable weight, by layer; higher is kept.

    Args:
        backbone: the network, trained; masks of earlier rounds stay.
        config: not used.
        context: not used.
    """
    del config, context
    return magnitudes(backbone)
