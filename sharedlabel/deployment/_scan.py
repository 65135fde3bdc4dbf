"""Recurrences that exporters can take: one scan over the instances instead of a loop unrolled to one length."""

from __future__ import annotations

import copy
import inspect
from typing import TypeVar, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from sharedlabel.aggregators._recurrence import Recurrence
from sharedlabel.errors import DeploymentError

Network = TypeVar("Network", bound=nn.Module)


class ScannedLstm(nn.Module):
    """Computes what an `nn.LSTM` computes in evaluation mode.

    torch.export unrolls `nn.LSTM` to the length of its example; a scan keeps the length free, in ONNX too.

    Args:
        lstm: one direction, without projections.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(lstm, index) for index in range(lstm.num_layers))
        self.batch_first = lstm.batch_first

    def forward(self, inputs: Float[Tensor, "a b f"]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Return the outputs of every step and the last states, from states of zero."""
        outputs = inputs.transpose(0, 1) if self.batch_first else inputs
        hidden, cell = [], []
        for layer in self.layers:
            outputs, last_hidden, last_cell = layer(outputs)
            hidden.append(last_hidden)
            cell.append(last_cell)
        outputs = outputs.transpose(0, 1) if self.batch_first else outputs
        return outputs, (torch.stack(hidden), torch.stack(cell))


class _Layer(nn.Module):
    recurrent: Tensor

    def __init__(self, lstm: nn.LSTM, index: int) -> None:
        super().__init__()
        weights = {name: getattr(lstm, f"{name}_l{index}").detach().clone() for name in ("weight_ih", "weight_hh")}
        bias = getattr(lstm, f"bias_ih_l{index}") + getattr(lstm, f"bias_hh_l{index}") if lstm.bias else None
        self.drive = nn.Linear(weights["weight_ih"].shape[1], weights["weight_ih"].shape[0], bias=lstm.bias)
        self.drive.weight = nn.Parameter(weights["weight_ih"])
        if bias is not None:
            self.drive.bias = nn.Parameter(bias.detach())
        self.register_buffer("recurrent", weights["weight_hh"])

    def forward(self, inputs: Float[Tensor, "n b f"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return outputs `[n b h]`, and the hidden and cell state `[b h]` after the last step."""

        @no_type_check  # the tests' shape checks keep a stack, which a scan may not touch
        def step(state: list[Tensor], driven: Tensor) -> tuple[list[Tensor], Tensor]:
            gates = driven + nn.functional.linear(state[0], self.recurrent)
            enter, forget, candidate, leave = gates.chunk(4, -1)
            cell = forget.sigmoid() * state[1] + enter.sigmoid() * candidate.tanh()
            hidden = leave.sigmoid() * cell.tanh()
            return [hidden, cell], hidden.clone()  # a scan's outputs may not be the same tensor

        zero = inputs.new_zeros(inputs.shape[1], self.recurrent.shape[1])
        (hidden, cell), outputs = scan(step, [zero, zero.clone()], self.drive(inputs))
        return outputs, hidden, cell


class ScannedGru(nn.Module):
    """Computes what an `nn.GRU` computes in evaluation mode.

    Args:
        gru: one direction.
    """

    def __init__(self, gru: nn.GRU) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_GruLayer(gru, index) for index in range(gru.num_layers))
        self.batch_first = gru.batch_first

    def forward(self, inputs: Float[Tensor, "a b f"]) -> tuple[Tensor, Tensor]:
        """Return the outputs of every step and the last states, from states of zero."""
        outputs = inputs.transpose(0, 1) if self.batch_first else inputs
        last = []
        for layer in self.layers:
            outputs = layer(outputs)
            last.append(outputs[-1])
        return outputs.transpose(0, 1) if self.batch_first else outputs, torch.stack(last)


class _GruLayer(nn.Module):
    def __init__(self, gru: nn.GRU, index: int) -> None:
        super().__init__()
        self.drive, self.recur = (_linear(gru, part, index) for part in ("ih", "hh"))

    def forward(self, inputs: Float[Tensor, "n b f"]) -> Float[Tensor, "n b h"]:
        """Return the outputs of every step."""
        weight, bias = self.recur.weight, self.recur.bias

        @no_type_check
        def step(state: Tensor, driven: Tensor) -> tuple[Tensor, Tensor]:
            reset, update, candidate = driven.chunk(3, -1)
            by_reset, by_update, by_candidate = nn.functional.linear(state, weight, bias).chunk(3, -1)
            keep = (update + by_update).sigmoid()
            fresh = (candidate + (reset + by_reset).sigmoid() * by_candidate).tanh()
            hidden = fresh + keep * (state - fresh)
            return hidden, hidden.clone()

        driven = self.drive(inputs)
        outputs: Tensor = scan(step, driven.new_zeros(driven.shape[1], weight.shape[1]), driven)[1]
        return outputs


def _linear(gru: nn.GRU, part: str, index: int) -> nn.Linear:
    """Return the gates' map from the inputs (`ih`) or the state (`hh`) of a layer."""
    weight = getattr(gru, f"weight_{part}_l{index}").detach().clone()
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=gru.bias)
    linear.weight = nn.Parameter(weight)
    if gru.bias:
        linear.bias = nn.Parameter(getattr(gru, f"bias_{part}_l{index}").detach().clone())
    return linear


class ScannedRecurrence(nn.Module):
    """Computes what a `Recurrence` computes.

    Args:
        recurrence: its step becomes that of a scan.
    """

    def __init__(self, recurrence: Recurrence) -> None:
        super().__init__()
        self.recurrence = recurrence

    def forward(self, inputs: Float[Tensor, "t n f"]) -> Float[Tensor, "t n h"]:
        """Return what every step puts out."""
        driven = self.recurrence.drive(inputs)
        unchecked = inspect.unwrap(type(self.recurrence).step)

        @no_type_check
        def step(state: list[Tensor], moment: Tensor) -> tuple[list[Tensor], Tensor]:
            state, output = unchecked(self.recurrence, state, moment)
            return state, output.clone()

        outputs: Tensor = scan(step, self.recurrence.start(driven), driven.transpose(0, 1))[1]
        return outputs.transpose(0, 1)


def with_scans(network: Network) -> Network:
    """Return a copy of a network whose recurrences are scans.

    Raises:
        DeploymentError: an LSTM or GRU that reads both ways, or an LSTM that projects its state.
    """
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        scanned = _scanned(name, module)
        if scanned is not None:
            copied.set_submodule(name, scanned.eval())
    return copied


def _scanned(name: str, module: nn.Module) -> nn.Module | None:
    """Return what takes the place of a recurrence; None for every other module."""
    if isinstance(module, Recurrence):
        return ScannedRecurrence(module)
    if not isinstance(module, nn.LSTM | nn.GRU):
        return None
    kind = type(module).__name__
    if module.bidirectional or module.proj_size:
        raise DeploymentError(
            f"expected {kind}s of one direction without projections, got {name!r}: {module}; "
            "such a network cannot be exported, choose a cell of another aggregator"
        )
    return ScannedLstm(module) if isinstance(module, nn.LSTM) else ScannedGru(module)
