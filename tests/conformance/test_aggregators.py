"""What every aggregator must do; it runs over the folder's listing, so a new file is tested without being named."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from sharedlabel import cost, plugins, rng
from sharedlabel.aggregators import _contract
from sharedlabel.aggregators import _space as space
from sharedlabel.aggregators._base import Aggregator, prefix_loss
from sharedlabel.aggregators._space import LogRange, with_options
from sharedlabel.config import Plugin, canonical, remade, resolve
from sharedlabel.training import search
from sharedlabel.types import SetShape

TUPLES, INSTANCES, WIDTH, CLASSES = 6, 5, 7, 4
NAMES = plugins.available("aggregators")
RESNET20_MACS = 40_800_000  # of one 32 x 32 image

pytestmark = pytest.mark.parametrize("name", NAMES)


def set_shape(dtype: torch.dtype = torch.float64, prior: tuple[float, ...] = (0.4, 0.3, 0.2, 0.1)) -> SetShape:
    return SetShape(
        embedding_mean=torch.full((WIDTH,), 0.5, dtype=dtype),
        embedding_scale=torch.full((WIDTH,), 1.5, dtype=dtype),
        log_prior=torch.tensor(prior, dtype=dtype).log(),
    )


def tried(plugin: Plugin) -> dict[str, tuple[Any, ...]]:
    """Return values of every option that a search may change."""
    return {option: space.samples(choices) for option, choices in space.space_of(plugin).items()}


def build(name: str, dtype: torch.dtype = torch.float64, *, shake: bool = True) -> Aggregator:
    """Build with the default options; `shake` moves every parameter off its start, so that no zero hides anything."""
    plugin = plugins.load("aggregators", name)
    with rng.seeded(0, "conformance", name):
        aggregator: Aggregator = plugin.build(plugin.Config(), set_shape(dtype)).to(dtype)
        if shake:
            with torch.no_grad():
                for parameter in aggregator.parameters():
                    parameter.add_(0.3 * torch.randn_like(parameter))
    return aggregator.eval()


def inputs(
    instances: int = INSTANCES, dtype: torch.dtype = torch.float64, tuples: int = TUPLES
) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs", instances)
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=dtype)
    return embeddings, 2 * torch.randn(tuples, instances, CLASSES, generator=generator, dtype=dtype)


def toy(tuples: int = 128, instances: int = INSTANCES) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tuples whose embeddings hold more about the label than the logits, which are over-confident."""
    generator = rng.generator(0, "toy")
    labels = torch.randint(CLASSES, (tuples,), generator=generator)
    embeddings = 1.5 * torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    embeddings[..., :CLASSES] += torch.nn.functional.one_hot(labels, CLASSES)[:, None]
    noise = torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)
    return embeddings, 3 * (embeddings[..., :CLASSES] + noise), labels, torch.full((tuples,), 1 / tuples).double()


def descend(aggregator: Aggregator, steps: int) -> None:
    """Train on the toy as the trainer does, without its schedule."""
    embeddings, logits, labels, weights = toy()
    optimizer = torch.optim.AdamW(aggregator.parameters(), lr=3e-3)
    aggregator.train()
    with rng.seeded(0, "dropout"):
        for _ in range(steps):
            optimizer.zero_grad()
            (weights @ prefix_loss(aggregator(embeddings, logits), labels)).mean().backward()
            optimizer.step()
    aggregator.eval()


def loss(aggregator: Aggregator) -> float:
    embeddings, logits, labels, weights = toy()
    with torch.no_grad():
        return float((weights @ prefix_loss(aggregator(embeddings, logits), labels)).mean())


@pytest.mark.parametrize("instances", [1, 2, INSTANCES, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_posterior_is_normalised_at_every_prefix(name: str, instances: int, dtype: torch.dtype) -> None:
    out = _contract.posterior(build(name, dtype), *inputs(instances, dtype), tolerance=1e-5)
    assert out.dtype == dtype


@pytest.mark.parametrize("instances", [1, 64])
def test_extreme_logits_stay_finite_forwards_and_backwards(name: str, instances: int) -> None:
    aggregator = build(name, torch.float32)
    embeddings, logits = (x.requires_grad_() for x in inputs(instances, torch.float32))
    out = aggregator(1e6 * embeddings, (1e4 * logits).clamp(-1e4, 1e4))
    assert out.isfinite().all()
    torch.testing.assert_close(out.logsumexp(-1), torch.zeros(TUPLES, instances), atol=1e-5, rtol=0)
    if out.requires_grad:
        out.mean().backward()
        grads = [p.grad for p in (*aggregator.parameters(), embeddings, logits) if p.grad is not None]
        assert grads
        assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_features_give_a_float32_posterior(name: str, dtype: torch.dtype) -> None:
    embeddings, logits = inputs(dtype=torch.float32)
    aggregator = build(name, torch.float32)
    out = aggregator(embeddings.to(dtype), logits.to(dtype))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.logsumexp(-1), torch.zeros(TUPLES, INSTANCES), atol=1e-5, rtol=0)
    torch.testing.assert_close(out, aggregator(embeddings, logits), atol=0.2, rtol=0.1)


def test_autocast_gives_a_float32_posterior(name: str) -> None:
    embeddings, logits = inputs(dtype=torch.float32)
    aggregator = build(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = aggregator(embeddings, logits)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.logsumexp(-1), torch.zeros(TUPLES, INSTANCES), atol=1e-5, rtol=0)
    torch.testing.assert_close(out, aggregator(embeddings, logits), atol=0.2, rtol=0.1)


@pytest.mark.parametrize("k", range(INSTANCES - 1))
def test_later_instances_change_nothing(name: str, k: int) -> None:
    aggregator = build(name)
    embeddings, logits = inputs()
    before = aggregator(embeddings, logits)
    embeddings[:, k + 1 :] = -3 * embeddings[:, k + 1 :] + 1
    logits[:, k + 1 :] = -4 * logits[:, k + 1 :] - 1
    after = aggregator(embeddings, logits)
    torch.testing.assert_close(after[:, : k + 1], before[:, : k + 1], atol=1e-9, rtol=0)
    assert not torch.allclose(after[:, k + 1 :], before[:, k + 1 :], atol=1e-3)


@pytest.mark.parametrize("instances", [1, 2, 17])
def test_the_contract_holds_far_below_the_tolerance_of_fitted_aggregators(name: str, instances: int) -> None:
    """Each prefix equals a pass over these instances alone, each tuple itself in other company, `at` forward."""
    aggregator, tuples = build(name), inputs(instances)
    for promise in (_contract.check_causal, _contract.check_separate, _contract.check_some):
        promise(aggregator, *tuples, tolerance=1e-9)
    expected = aggregator(*tuples)[:, -1]
    torch.testing.assert_close(aggregator.last(*tuples), expected, atol=1e-9, rtol=0)


def test_trained_weights_keep_the_contract_in_float32(name: str) -> None:
    aggregator = build(name, shake=False)
    if list(aggregator.parameters()) and not aggregator.fit(*toy()):
        descend(aggregator, steps=40)
    embeddings, logits, *_ = toy(instances=16)
    _contract.check(aggregator.float(), embeddings.float(), logits.float())


@pytest.mark.parametrize("prefixes", [[1], [2, 5], [1, 2, 4, INSTANCES]])
def test_some_prefixes_alone_equal_those_of_all(name: str, prefixes: list[int]) -> None:
    aggregator = build(name)
    embeddings, logits = inputs()
    expected = aggregator(embeddings, logits)[:, [k - 1 for k in prefixes]]
    torch.testing.assert_close(aggregator.at(embeddings, logits, prefixes), expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 7, 16])
def test_the_weights_of_the_loss_sum_to_one_and_count_the_whole_tuple(name: str, size: int) -> None:
    weights = build(name).prefix_weights(size)
    assert weights.shape == (size,)
    assert float(weights.sum()) == pytest.approx(1)
    assert float(weights.min()) >= 0 < float(weights[-1])


def test_early_stopping_sees_normalised_posteriors(name: str) -> None:
    draft = build(name).draft(*inputs(), [1, 3, INSTANCES])
    assert draft.shape == (TUPLES, 3, CLASSES)
    torch.testing.assert_close(draft.logsumexp(-1), torch.zeros(TUPLES, 3, dtype=draft.dtype), atol=1e-5, rtol=0)


def test_sixteen_instances_cost_less_than_two_percent_of_a_resnet20_pass(name: str) -> None:
    """64 features, 10 labels; an aggregator that averages over several orders may spend as much on each.

    Of what a search may choose, all sizes are the largest.
    """
    shape, usual = SetShape(torch.zeros(64), torch.ones(64), torch.zeros(10)), resolve("aggregators", name)
    largest = {option: max(values) for option, values in tried(usual).items() if not isinstance(values[0], str)}
    for plugin in (usual, with_options(usual, largest)):
        built = plugins.load("aggregators", name).build(plugin.config, shape)
        spent = cost.aggregator_macs(built, shape, [16])[16]
        assert spent / getattr(plugin.config, "orders", 1) < 0.02 * RESNET20_MACS


def test_every_setting_that_a_search_may_choose_can_be_built(name: str) -> None:
    """An option that there is not, or a combination that is refused, fails here and not in the middle of a search."""
    usual = resolve("aggregators", name)
    values = tried(usual)
    for setting in itertools.product(*values.values()):
        chosen = dict(zip(values, setting, strict=True))
        plugin = with_options(usual, chosen)
        assert {option: space.option(plugin, option) for option in chosen} == chosen
        assert canonical(remade("aggregators", json.loads(canonical(plugin)))) == canonical(plugin)
        built = plugins.load("aggregators", name).build(plugin.config, set_shape(torch.float32))
        assert built.eval()(*inputs(2, torch.float32)).shape == (TUPLES, 2, CLASSES)


def test_what_a_search_may_choose_contains_the_default(name: str) -> None:
    usual = resolve("aggregators", name)
    for option, choices in space.space_of(usual).items():
        default = space.option(usual, option)
        if isinstance(choices, LogRange):
            assert choices.low <= default <= choices.high
        else:
            assert default in choices
            assert len(set(choices)) == len(choices) > 1
            assert all(isinstance(value, bool | int | float | str) for value in choices)


def test_only_what_is_trained_by_gradient_descent_is_searched(name: str) -> None:
    usual = resolve("aggregators", name)
    assert search.descends(usual) or not space.space_of(usual)


def test_order_matters_exactly_when_declared(name: str) -> None:
    aggregator = build(name)
    embeddings, logits = inputs()
    last, turned = (aggregator(e, z)[:, -1] for e, z in [(embeddings, logits), (embeddings.flip(1), logits.flip(1))])
    if aggregator.permutation_invariant:
        torch.testing.assert_close(turned, last, atol=1e-9, rtol=0)
    else:
        assert not torch.allclose(turned, last, atol=1e-3)


def test_evaluation_is_deterministic(name: str) -> None:
    aggregator = build(name)
    assert torch.equal(aggregator(*inputs()), aggregator(*inputs()))


def test_a_copy_from_the_state_dict_gives_the_same_posterior(name: str) -> None:
    aggregator, copy = build(name), build(name, shake=False)
    copy.load_state_dict(aggregator.state_dict())
    assert torch.equal(copy(*inputs()), aggregator(*inputs()))


def test_runs_on_the_meta_device(name: str) -> None:
    aggregator = build(name, torch.float32).to("meta")
    out = aggregator(*(x.to("meta") for x in inputs(dtype=torch.float32)))
    assert out.device.type == "meta"
    assert out.shape == (TUPLES, INSTANCES, CLASSES)


def test_gradients_reach_every_parameter(name: str) -> None:
    aggregator = build(name, shake=False)
    embeddings, logits, labels, weights = toy()
    if aggregator.fit(embeddings, logits, labels, weights) or not list(aggregator.parameters()):
        return
    descend(aggregator, steps=1)  # a read-out that starts at zero hides what is before it from the first step
    aggregator.zero_grad()
    prefix_loss(aggregator(embeddings, logits), labels).mean().backward()
    still = [n for n, p in aggregator.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_training_moves_every_parameter_and_lowers_the_loss(name: str) -> None:
    aggregator = build(name, shake=False)
    if not list(aggregator.parameters()):
        return
    before, start = loss(aggregator), {n: p.detach().clone() for n, p in aggregator.named_parameters()}
    if not aggregator.fit(*toy()):
        before = loss(aggregator)
        descend(aggregator, steps=40)
    assert loss(aggregator) < 0.95 * before
    assert not [n for n, p in aggregator.named_parameters() if torch.equal(p, start[n])]


def test_fit_works_without_gradients_being_enabled(name: str) -> None:
    fitted, under_no_grad = build(name, shake=False), build(name, shake=False)
    done = fitted.fit(*toy())
    with torch.inference_mode():
        assert under_no_grad.fit(*toy()) == done
    for a, b in zip(fitted.parameters(), under_no_grad.parameters(), strict=True):
        assert torch.equal(a, b)
