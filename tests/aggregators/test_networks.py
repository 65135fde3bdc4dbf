from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from sharedlabel import rng
from sharedlabel.aggregators import attention, crafted_lstm, lstm, residual_lstm, tempered_log_pool
from sharedlabel.aggregators._base import MAX_DEVIATIONS, Aggregator, Standardize, instance_features
from sharedlabel.types import SetShape

WIDTH, CLASSES = 5, 3


def set_shape(dtype: torch.dtype = torch.float64) -> SetShape:
    return SetShape(
        embedding_mean=torch.ones(WIDTH, dtype=dtype),
        embedding_scale=torch.full((WIDTH,), 2.0, dtype=dtype),
        log_prior=torch.tensor([0.5, 0.3, 0.2], dtype=dtype).log(),
    )


def build(module: Any, dtype: torch.dtype = torch.float64, **options: Any) -> Aggregator:
    with rng.seeded(0, "networks"):
        aggregator: Aggregator = module.build(module.Config(**options), set_shape(dtype)).to(dtype)
    return aggregator.eval()


def inputs(tuples: int = 4, instances: int = 6, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=dtype)
    return embeddings, torch.randn(tuples, instances, CLASSES, generator=generator, dtype=dtype)


def shaken(model: Aggregator) -> Aggregator:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng.generator(3), dtype=parameter.dtype))
    return model


def test_features_are_standardised_and_cut() -> None:
    embeddings = torch.tensor([[[1.0, 3.0, -1.0, 1e6, -1e6]]]).double()
    standardized = Standardize(set_shape())(embeddings)
    assert standardized.tolist() == [[[0.0, 1.0, -1.0, MAX_DEVIATIONS, -MAX_DEVIATIONS]]]
    features = instance_features(standardized, torch.tensor([[[0.0, -1e4, 0.0]]]).double())
    half = torch.tensor(0.5).log().item()
    assert features[0, 0, WIDTH:].tolist() == pytest.approx([half, -20.0, half])


def test_attention_equals_a_loop_over_prefixes() -> None:
    """Equation 9 of Ilse et al., one prefix and one tuple at a time."""
    model = build(attention)
    embeddings, logits = inputs()
    out = model(embeddings, logits)
    for t in range(4):
        standardized = (embeddings[t] - 1) / 2
        features = torch.cat([standardized, logits[t].log_softmax(-1)], dim=-1)
        for k in range(1, 7):
            scores = []
            for h in features[:k]:
                gated = torch.tanh(model.content.weight @ h) * torch.sigmoid(model.gate.weight @ h)
                scores.append(model.score.weight[0] @ gated)
            shares = torch.stack(scores).exp() / torch.stack(scores).exp().sum()
            pooled = sum(share * h for share, h in zip(shares, features[:k], strict=True))
            read = model.classify(torch.cat([pooled, torch.tensor([k]).double().log()]))
            torch.testing.assert_close(out[t, k - 1], read.log_softmax(-1), atol=1e-9, rtol=0)


def test_attention_is_told_how_many_instances_there_are() -> None:
    """Copies of one instance leave the pooled mean alone; only log k can tell them apart."""
    embeddings, logits = inputs(1, 1)
    out = build(attention)(embeddings.expand(1, 4, -1), logits.expand(1, 4, -1))
    assert (out[0, 1:] - out[0, :-1]).abs().amax(-1).min() > 1e-4


def test_attention_survives_scores_that_differ_by_thousands() -> None:
    model = build(attention, torch.float32)
    with torch.no_grad():
        model.score.weight.mul_(1e5)
    embeddings, logits = (x.requires_grad_() for x in inputs(dtype=torch.float32))
    out = model(embeddings, logits)
    out.mean().backward()
    assert out.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("layers", [1, 2])
def test_lstm_equals_stepping_by_hand(layers: int) -> None:
    """The gates' equations, one step at a time."""
    model = build(lstm, layers=layers, hidden=8, dropout=0.3)
    embeddings, logits = inputs()
    out = model(embeddings, logits)
    steps = torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1)
    for layer in range(layers):
        w_in, w_state, b_in, b_state = (
            getattr(model.lstm, f"{part}_l{layer}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        state, cell = torch.zeros(4, 8).double(), torch.zeros(4, 8).double()
        outputs = []
        for step in steps.unbind(1):
            i, f, g, o = (step @ w_in.T + b_in + state @ w_state.T + b_state).chunk(4, dim=-1)
            cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
            state = o.sigmoid() * cell.tanh()
            outputs.append(state)
        steps = torch.stack(outputs, dim=1)
    read = steps @ model.classify.weight.T + model.classify.bias
    torch.testing.assert_close(out, read.log_softmax(-1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("module", [lstm, residual_lstm])
def test_multiplications_are_countable_on_the_meta_device(module: Any) -> None:
    """4 * hidden * (inputs + hidden) per step in the recurrence; the rest is linear layers."""
    model = build(module, torch.float32, hidden=8).to("meta")
    counter = FlopCounterMode(display=False)
    with counter:
        model(*(x.to("meta") for x in inputs(4, 6, torch.float32)))
    per_step = sum(p.numel() for n, p in model.named_parameters() if p.dim() == 2)
    assert counter.get_total_flops() == 2 * 4 * 6 * per_step


def test_residual_lstm_starts_at_the_tempered_log_pool(discrete) -> None:
    pool = tempered_log_pool.build(tempered_log_pool.Config(), discrete.shape)
    data = (discrete.embeddings, 3 * discrete.logits, discrete.labels, discrete.weights)
    pool.fit(*data)
    for correction in ("evidence", "posterior"):
        model = residual_lstm.build(residual_lstm.Config(correction=correction), discrete.shape).double().eval()
        assert model.fit(*data) is False
        assert model.pool.coefficients[0] < -0.5
        assert torch.equal(model(*data[:2]), pool(*data[:2]))


@pytest.mark.parametrize("correction", ["evidence", "posterior"])
@pytest.mark.parametrize("instances", [1, 6, 64])
def test_residual_correction_is_bounded(correction: str, instances: int) -> None:
    model = build(residual_lstm, correction=correction, bound=0.7)
    embeddings, logits = inputs(4, instances)
    start = model(embeddings, logits)
    with torch.no_grad():
        model.read_out.weight.normal_(0, 1e3, generator=rng.generator(1))
    moved = (model(embeddings, logits) - start).abs().amax(-1)
    steps = torch.arange(1, instances + 1).double() if correction == "evidence" else torch.ones(instances).double()
    assert (moved <= 2 * 0.7 * steps + 1e-9).all()  # twice: normalising can shift by as much again
    assert (moved > 0.1).any()


def test_residual_forget_gate_starts_open() -> None:
    model = build(residual_lstm, hidden=8, forget_bias=1.5)
    bias = (model.lstm.bias_ih_l0 + model.lstm.bias_hh_l0).view(4, 8)
    assert (bias[1] == 1.5).all()
    assert (bias[[0, 2, 3]].abs() < 1.5).all()


@pytest.mark.parametrize("module", [lstm, residual_lstm, attention])
def test_dropout_acts_in_training_only(module: Any) -> None:
    model = build(module, dropout=0.5)
    if module is residual_lstm:
        with torch.no_grad():
            model.read_out.weight.normal_(generator=rng.generator(0))
    data = inputs()
    assert torch.equal(model(*data), model(*data))
    model.train()
    with rng.seeded(0, "dropout"):
        assert not torch.allclose(model(*data), model(*data))


VARIANTS = pytest.mark.parametrize(
    "options",
    [
        {"base": "pool"},
        {"base": "refit"},
        {"refit_hidden": 0},
        {"inputs": "posterior"},
        {"correction": "evidence"},
        {"initial": "learned"},
        {"activation": "b2bsqrt"},
        {"activation": "b2bsqrt", "initial": "learned"},
    ],
    ids=str,
)


@VARIANTS
def test_crafted_lstm_starts_at_the_tempered_log_pool(discrete, options: dict[str, Any]) -> None:
    pool = tempered_log_pool.build(tempered_log_pool.Config(), discrete.shape)
    model = crafted_lstm.build(crafted_lstm.Config(**options), discrete.shape).double().eval()
    data = (discrete.embeddings, 3 * discrete.logits, discrete.labels, discrete.weights)
    pool.fit(*data)
    assert model.fit(*data) is False
    assert torch.equal(model(*data[:2]), pool(*data[:2]))


def test_crafted_lstm_without_a_base_starts_at_the_prior_and_ignores_the_pool(discrete) -> None:
    model = crafted_lstm.build(crafted_lstm.Config(base="none"), discrete.shape).double().eval()
    data = (discrete.embeddings, discrete.logits, discrete.labels, discrete.weights)
    assert model.fit(*data) is False
    start = model(*data[:2])
    torch.testing.assert_close(start, discrete.prior.log().expand_as(start))
    assert not model.pool.coefficients.requires_grad


@pytest.mark.parametrize("hidden", [0, 64])
def test_crafted_lstm_adds_the_head_to_the_evidence_of_each_instance(hidden: int) -> None:
    model = build(crafted_lstm, refit_hidden=hidden)
    embeddings, logits = inputs()
    with torch.no_grad():
        model.refit[-1].weight.normal_(generator=rng.generator(2))
    read = torch.cat([(embeddings - 1) / 2, logits.log_softmax(-1)], dim=-1)
    if hidden:
        read = (read @ model.refit[0].weight.T + model.refit[0].bias).relu()
    evidence = logits.log_softmax(-1) - model.pool.log_prior + read @ model.refit[-1].weight.T
    expected = (model.pool.log_prior + evidence.cumsum(1)).log_softmax(-1)  # the LSTM's read-out starts at zero
    torch.testing.assert_close(model(embeddings, logits), expected)


def test_crafted_lstm_weighs_prefixes_as_asked() -> None:
    assert build(crafted_lstm).prefix_weights(4).tolist() == [0.25] * 4
    assert build(crafted_lstm, loss="last").prefix_weights(4).tolist() == [0.0, 0.0, 0.0, 1.0]


@VARIANTS
def test_every_variant_of_the_crafted_lstm_is_anytime_and_reads_every_instance(options: dict[str, Any]) -> None:
    model = shaken(build(crafted_lstm, **options))
    embeddings, logits = inputs()
    out = model(embeddings, logits)
    torch.testing.assert_close(model(embeddings[:, :3], logits[:, :3]), out[:, :3])
    logits[:, 2] += torch.tensor([3.0, 0.0, 0.0])
    change = (model(embeddings, logits) - out).detach().abs().amax((0, 2))
    assert float(change[:2].max()) == 0 < float(change[2:].min())


def test_the_unsaturated_lstm_is_an_lstm_with_b2bsqrt_for_tanh() -> None:
    with rng.seeded(0, "unsaturated"):
        lstm_ = crafted_lstm.UnsaturatedLstm(7, 5, forget_bias=1.0).double()
    rows = 100 * torch.randn(3, 6, 7, dtype=torch.float64, generator=rng.generator(4))

    def b2bsqrt(values: Tensor) -> Tensor:
        return values.sign() * ((1 + values.abs()).sqrt() - 1)

    hidden = cell = torch.zeros(3, 5, dtype=torch.float64)
    for k in range(6):
        gates = lstm_.enter(rows[:, k]) + hidden @ lstm_.recur.weight.T
        enter, forget, candidate, leave = gates.chunk(4, -1)
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * b2bsqrt(candidate)
        hidden = torch.sigmoid(leave) * b2bsqrt(cell)
        torch.testing.assert_close(lstm_(rows)[:, k], hidden)
    assert float(hidden.detach().abs().max()) > 1  # tanh could not


@pytest.mark.parametrize(("seen", "other"), [("embedding", 1), ("posterior", 0)])
def test_crafted_lstm_reads_the_inputs_asked_for_alone(seen: str, other: int) -> None:
    model = shaken(build(crafted_lstm, base="none", inputs=seen))
    given, changed = inputs(), list(inputs())
    changed[other] = changed[other].flip(0)
    assert torch.equal(model(*given), model(*changed))
    changed[1 - other] = changed[1 - other].flip(0)
    assert not torch.allclose(model(*given), model(*changed), atol=1e-3)


def test_a_learned_initial_state_changes_the_first_posterior() -> None:
    model = shaken(build(crafted_lstm, initial="learned"))
    assert model.initial is not None
    before = model(*inputs())
    with torch.no_grad():
        model.initial.add_(1.0)
    assert not torch.allclose(model(*inputs())[:, 0], before[:, 0], atol=1e-3)
