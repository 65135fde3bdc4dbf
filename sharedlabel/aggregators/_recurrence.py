"""Recurrences over the instances of a tuple, stated as one step, so that exporters can run the step as a scan.

A layer of torch multiplies every instance of every tuple with its weights. Tuples that share instances (`_shared.py`)
need that product once for each instance: `driven` makes it, and `outputs` goes on from there.
"""

from __future__ import annotations

import abc
from typing import TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Recurrence(nn.Module, abc.ABC):
    """A recurrence over instances; what depends on the inputs alone is computed for all instances at once."""

    def drive(self, inputs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b g"]:
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
        return self.run(self.drive(inputs))

    def run(self, driven: Float[Tensor, "t n g"]) -> Float[Tensor, "t n h"]:
        """Return what every step puts out, of what it is driven by."""
        state, outputs = self.start(driven), []
        for moment in driven.unbind(1):
            state, output = self.step(state, moment)
            outputs.append(output)
        return torch.stack(outputs, dim=1)


def driven(layer: nn.Module, inputs: Float[Tensor, "*b f"]) -> Float[Tensor, "*b g"]:
    """Return what every step of a recurrent layer is driven by, of each instance alone."""
    if isinstance(layer, Recurrence):
        drive: Tensor = layer.drive(inputs)
        return drive
    if not _stepped(layer, inputs):
        return inputs
    enter, _, enter_bias, recur_bias = layer.all_weights[0]
    return nn.functional.linear(inputs, _doubled(enter), _doubled(enter_bias + recur_bias))


def outputs(layer: nn.Module, drive: Float[Tensor, "t n g"]) -> Float[Tensor, "t n h"]:
    """Return what every step of a recurrent layer puts out, of what it is driven by."""
    if isinstance(layer, Recurrence):
        return layer.run(drive)
    if not _stepped(layer, drive):
        whole: Tensor = layer(drive)[0]
        return whole
    weight = _doubled(layer.all_weights[0][1]).T
    cell, output, steps = None, None, []
    for moment in drive.unbind(1):
        gates = moment.sigmoid() if output is None else torch.addmm(moment, output, weight).sigmoid_()
        enter, forget, candidate, leave = gates.chunk(4, -1)
        entered = torch.addcmul(-enter, enter, candidate, value=2)  # tanh(x) = 2 sigmoid(2 x) - 1, five times as fast
        cell = entered if cell is None else entered.addcmul_(forget, cell)
        output = torch.addcmul(-leave, leave, (2 * cell).sigmoid_(), value=2)
        steps.append(output)
    return torch.stack(steps, dim=1)


def _stepped(layer: nn.Module, inputs: Tensor) -> TypeGuard[nn.LSTM]:
    """Tell whether a layer is an LSTM whose steps take no longer one by one: of one layer, on a CPU."""
    return isinstance(layer, nn.LSTM) and layer.num_layers == 1 and inputs.device.type == "cpu"


def _doubled(gates: Float[Tensor, "g *f"]) -> Float[Tensor, "g *f"]:
    """Return weights or biases of the gates input, forget, candidate and output, those of the candidate twice."""
    enter, forget, candidate, leave = gates.chunk(4)
    return torch.cat([enter, forget, 2 * candidate, leave])
