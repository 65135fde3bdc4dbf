"""The exponential moving average of a network: weights and statistics, in 32 bits whatever the network computes in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sharedlabel.backbones._masking import MASK

_WARMUP = 10  # steps


class Average:
    """The average of a network over the steps of a training.

    After step t the last one weighs 1 - min(decay, (1 + t) / (10 + t)), so that a short training does not end near its
    start. Masks, which say what is pruned now, are not averaged: what they remove is no part of the network.

    Args:
        decay: in (0, 1).

    Reference:
        Tan & Le, "EfficientNet" (2019), whose code averages so (`ExponentialMovingAverage` of TensorFlow).
    """

    def __init__(self, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self._values: dict[str, Tensor] = {}

    @torch.no_grad()
    def add(self, network: nn.Module) -> None:
        """Add the network as it is after a step."""
        now = {name: value.detach().float() for name, value in _averaged(network).items()}
        if not self._values:
            self._values = {name: value.clone() for name, value in now.items()}
        else:
            share = 1 - min(self.decay, (1 + self.steps) / (_WARMUP + self.steps))
            held = [self._values[name].to(value.device) for name, value in now.items()]
            torch._foreach_lerp_(held, list(now.values()), share)
            self._values = dict(zip(now, held, strict=True))
        self.steps += 1

    def give(self, network: nn.Module) -> None:
        """Make the network what the average is; masks stay, and so does what was not averaged."""
        if self._values:
            state = network.state_dict()
            network.load_state_dict(
                {**state, **{name: value.to(state[name].dtype) for name, value in self._values.items()}}
            )

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on."""
        return {"steps": self.steps, "values": self._values}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.steps, self._values = state["steps"], dict(state["values"])


def _averaged(network: nn.Module) -> dict[str, Tensor]:
    """Return the weights and statistics that are averaged."""
    return {
        name: value
        for name, value in network.state_dict().items()
        if isinstance(value, Tensor) and value.is_floating_point() and not name.endswith(MASK)
    }
