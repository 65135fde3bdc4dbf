"""GRU and accumulator against their equations, one step at a time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import accumulator, gru
from sharedlabel.aggregators._base import Aggregator
from sharedlabel.measurements import counts
from sharedlabel.types import SetShape

WIDTH, CLASSES, HIDDEN = 5, 3, 8
LOG_PRIOR = torch.tensor([0.5, 0.3, 0.2]).double().log()


def build(module: Any, **options: Any) -> Aggregator:
    shape = SetShape(torch.ones(WIDTH).double(), torch.full((WIDTH,), 2.0).double(), LOG_PRIOR)
    with rng.seeded(0, "recurrences"):
        aggregator: Aggregator = module.build(module.Config(hidden=HIDDEN, **options), shape).double()
    return aggregator.eval()


def inputs(tuples: int = 4, instances: int = 6) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    return embeddings, torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)


def features() -> Tensor:
    embeddings, logits = inputs()
    return torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1)


@pytest.mark.parametrize("layers", [1, 2])
def test_gru_equals_stepping_by_hand(layers: int) -> None:
    model = build(gru, layers=layers)
    steps = features()
    for layer in range(layers):
        w_in, w_state, b_in, b_state = (
            getattr(model.gru, f"{part}_l{layer}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state, outputs = torch.zeros(4, HIDDEN).double(), []
        for step in steps.unbind(1):
            (r, z, c), (hr, hz, hc) = (
                (x @ w.T + b).chunk(3, -1) for x, w, b in ((step, w_in, b_in), (state, w_state, b_state))
            )
            keep = torch.sigmoid(z + hz)
            state = (1 - keep) * torch.tanh(c + torch.sigmoid(r + hr) * hc) + keep * state
            outputs.append(state)
        steps = torch.stack(outputs, dim=1)
    expected = model.classify(steps).log_softmax(-1)
    torch.testing.assert_close(model(*inputs()), expected, atol=1e-9, rtol=0)


def test_accumulator_equals_an_lstm_that_cannot_forget() -> None:
    """The gates' equations with a forget gate of one, and a read-out of the memory itself."""
    model = build(accumulator)
    w_in, b_in, w_state = model.memory.enter.weight, model.memory.enter.bias, model.memory.recur.weight
    memory, output, memories = torch.zeros(4, HIDDEN).double(), torch.zeros(4, HIDDEN).double(), []
    for step in features().unbind(1):
        i, g, o = (step @ w_in.T + b_in + output @ w_state.T).chunk(3, -1)
        memory = 1.0 * memory + i.sigmoid() * g.tanh()
        output = o.sigmoid() * memory.tanh()
        memories.append(memory)
    scores = LOG_PRIOR + model.classify(torch.stack(memories, dim=1))
    torch.testing.assert_close(model(*inputs()), scores.log_softmax(-1), atol=1e-9, rtol=0)


def test_accumulator_is_torchs_lstm_with_the_forget_gate_held_open() -> None:
    """The same weights in nn.LSTM, whose forget gate a bias of 1000 fixes at one; it puts out o * tanh(c)."""
    model = build(accumulator)
    lstm = torch.nn.LSTM(WIDTH + CLASSES, HIDDEN, batch_first=True).double()
    with torch.no_grad():
        for name, parts in (
            ("weight_ih_l0", model.memory.enter.weight.chunk(3)),
            ("weight_hh_l0", model.memory.recur.weight.chunk(3)),
            ("bias_ih_l0", model.memory.enter.bias.chunk(3)),
        ):
            forget = torch.full_like(parts[0], 1000.0 if name.startswith("bias") else 0.0)
            getattr(lstm, name).copy_(torch.cat([parts[0], forget, parts[1], parts[2]]))
        lstm.bias_hh_l0.zero_()
        _, (_, memory) = lstm(features())
    scores = LOG_PRIOR + model.classify(memory[0])
    torch.testing.assert_close(model.last(*inputs()), scores.log_softmax(-1), atol=1e-9, rtol=0)


def test_evidence_in_the_accumulator_grows_without_saturating() -> None:
    """One instance repeated 200 times moves the scores by about as much in its last 100 as in its first 100."""
    model = build(accumulator)
    embeddings, logits = (x[:, :1].expand(-1, 200, -1) for x in inputs())
    memory = model.memory(torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1))
    first, second = memory[:, 99], memory[:, 199] - memory[:, 99]
    torch.testing.assert_close(second.norm(dim=-1), first.norm(dim=-1), rtol=0.2, atol=0)


@pytest.mark.parametrize("module", [gru, accumulator])
def test_three_gates_are_counted_per_instance(module: Any) -> None:
    model = build(module)
    per_step = 3 * HIDDEN * (WIDTH + CLASSES + HIDDEN) + HIDDEN * CLASSES
    shape = SetShape(torch.zeros(WIDTH), torch.ones(WIDTH), torch.zeros(CLASSES))
    assert counts.aggregator_macs(model, shape, [1, 6]) == {1: per_step, 6: 6 * per_step}


@pytest.mark.parametrize("module", [gru, accumulator])
def test_dropout_acts_in_training_only(module: Any) -> None:
    model = build(module, dropout=0.5)
    assert torch.equal(model(*inputs()), model(*inputs()))
    model.train()
    with rng.seeded(0, "dropout"):
        assert not torch.allclose(model(*inputs()), model(*inputs()))
