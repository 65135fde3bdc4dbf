"""LSTMs that exporters can take: one scan over the instances instead of a loop unrolled to one length."""

from __future__ import annotations

import copy
from typing import TypeVar, no_type_check

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

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
        found = {name: getattr(lstm, f"{name}_l{index}").detach().clone() for name in ("weight_ih", "weight_hh")}
        bias = getattr(lstm, f"bias_ih_l{index}") + getattr(lstm, f"bias_hh_l{index}") if lstm.bias else None
        self.drive = nn.Linear(found["weight_ih"].shape[1], found["weight_ih"].shape[0], bias=lstm.bias)
        self.drive.weight = nn.Parameter(found["weight_ih"])
        if bias is not None:
            self.drive.bias = nn.Parameter(bias.detach())
        self.register_buffer("recurrent", found["weight_hh"])

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


def with_scans(network: Network) -> Network:
    """Return a copy of a network whose LSTMs are scans.

    Raises:
        DeploymentError: an LSTM that reads both ways or projects its state.
    """
    copied = copy.deepcopy(network)
    for name, module in list(copied.named_modules()):
        if not isinstance(module, nn.LSTM):
            continue
        if module.bidirectional or module.proj_size:
            raise DeploymentError(
                f"expected LSTMs of one direction without projections, got {name!r}: {module}; "
                "such a network cannot be exported, choose a cell of another aggregator"
            )
        copied.set_submodule(name, ScannedLstm(module).eval())
    return copied
