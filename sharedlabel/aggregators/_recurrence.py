"""Recurrences over the instances of a tuple, stated as one step, so that exporters can run the step as a scan."""

from __future__ import annotations

import abc

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Recurrence(nn.Module, abc.ABC):
    """A recurrence over instances; what depends on the inputs alone is computed for all instances at once."""

    def drive(self, inputs: Float[Tensor, "t n f"]) -> Float[Tensor, "t n g"]:
        """Return what every step is driven by; the inputs themselves by default."""
        return inputs

    @abc.abstractmethod
    def start(self, driven: Float[Tensor, "t n g"]) -> list[Tensor]:
        """Return the state before the first step, each part `[t h]`."""

    @abc.abstractmethod
    def step(self, state: list[Tensor], driven: Float[Tensor, "t g"]) -> tuple[list[Tensor], Float[Tensor, "t h"]]:
        """Return the state after a step, and what the step puts out."""

    def forward(self, inputs: Float[Tensor, "t n f"]) -> Float[Tensor, "t n h"]:
        """Return what every step puts out."""
        driven = self.drive(inputs)
        state, outputs = self.start(driven), []
        for moment in driven.unbind(1):
            state, output = self.step(state, moment)
            outputs.append(output)
        return torch.stack(outputs, dim=1)
