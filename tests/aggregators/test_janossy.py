"""Janossy pooling against explicit permutations; its orders; its options and what it refuses."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor

from sharedlabel import rng
from sharedlabel.aggregators import gru, janossy, lstm
from sharedlabel.aggregators._orders import orders
from sharedlabel.config import canonical, resolve
from sharedlabel.errors import ConfigError
from sharedlabel.measurements import counts
from sharedlabel.types import SetShape

WIDTH, CLASSES = 5, 3
BASE: dict[str, Any] = {"name": "gru", "hidden": 6}


def set_shape(dtype: torch.dtype = torch.float64) -> SetShape:
    return SetShape(torch.zeros(WIDTH, dtype=dtype), torch.ones(WIDTH, dtype=dtype), torch.zeros(CLASSES, dtype=dtype))


def build(base: str | dict[str, Any] = BASE, count: int = 3) -> janossy.Janossy:
    with rng.seeded(0, "janossy"):
        model = janossy.build(janossy.Config(base=base, orders=count), set_shape()).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.5 * torch.randn_like(parameter))
    return model.eval()


def inputs(tuples: int = 3, instances: int = 5) -> tuple[Tensor, Tensor]:
    generator = rng.generator(0, "inputs")
    embeddings = torch.randn(tuples, instances, WIDTH, generator=generator, dtype=torch.float64)
    return embeddings, torch.randn(tuples, instances, CLASSES, generator=generator, dtype=torch.float64)


def lengths(size: int) -> Tensor:
    return torch.arange(1, size + 1)[:, None]


def test_every_prefix_is_the_mean_over_explicit_permutations() -> None:
    model = build()
    embeddings, logits = inputs()
    out = model(embeddings, logits)
    for k in range(1, 6):
        passes = [model.base(embeddings[:, :k], logits[:, :k])[:, -1]]
        for number in (1, 2):
            order = orders(torch.tensor([[k]]), k, number)[0]
            assert sorted(order.tolist()) == list(range(k))
            passes.append(model.base(embeddings[:, order], logits[:, order])[:, -1])
        expected = torch.stack(passes).mean(0).log_softmax(-1)
        torch.testing.assert_close(out[:, k - 1], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("size", [1, 2, 9, 40])
def test_orders_permute_every_prefix_and_depend_on_its_length_alone(size: int) -> None:
    permuted = orders(lengths(size), size, 1)
    for k, row in enumerate(permuted.tolist(), start=1):
        assert sorted(row) == list(range(size))
        assert sorted(row[:k]) == list(range(k))
        assert row[:k] == orders(torch.tensor([[k]]), k, 1)[0].tolist()
    if size == 40:
        assert not torch.equal(permuted, orders(lengths(size), size, 2))


def test_orders_put_every_instance_everywhere_equally_often() -> None:
    """Over lengths and numbers, the place of the first and of the last instance is uniform."""
    places = {0: [], -1: []}
    for number in range(1, 41):
        permuted = orders(lengths(60), 60, number)[29:]
        for k, row in enumerate(permuted, start=30):
            for instance, list_of_places in places.items():
                list_of_places.append(float((row[:k] == instance % k).nonzero()[0, 0] + 0.5) / k)
    for own_places in places.values():
        histogram = torch.histc(torch.tensor(own_places), bins=10, min=0, max=1)
        assert (histogram / len(own_places) - 0.1).abs().max() < 0.03


def test_averaging_is_no_worse_than_the_orders_on_average() -> None:
    """The normaliser of a geometric mean is at most one."""
    model, labels = build(count=4), torch.tensor([0, 1, 2])
    embeddings, logits = inputs()
    single = [model.base(embeddings, logits)[:, -1]]
    for number in (1, 2, 3):
        order = orders(torch.tensor([[5]]), 5, number)[0]
        single.append(model.base(embeddings[:, order], logits[:, order])[:, -1])
    mean_loss = -torch.stack(single)[:, torch.arange(3), labels].mean(0)
    assert (-model.last(embeddings, logits)[torch.arange(3), labels] < mean_loss).all()


def test_more_orders_depend_less_on_the_given_one() -> None:
    def change(count: int) -> float:
        model = build({"name": "lstm", "hidden": 6}, count)
        embeddings, logits = inputs(20, 8)
        there, back = model.last(embeddings, logits), model.last(embeddings.flip(1), logits.flip(1))
        return float((there - back).detach().abs().mean())

    assert change(1) > 2 * change(16)


def test_training_sees_one_order() -> None:
    model = build({**BASE, "dropout": 0.0}).train()
    assert torch.equal(model(*inputs()), model.base(*inputs()))
    assert torch.equal(model.last(*inputs()), model.base.last(*inputs()))


def test_fit_is_that_of_the_base(discrete) -> None:
    model = janossy.build(janossy.Config(base="residual_lstm"), discrete.shape)
    assert model.fit(discrete.embeddings, 3 * discrete.logits, discrete.labels, discrete.weights) is False
    assert model.base.pool.coefficients[0] < -0.5


def test_each_order_is_charged() -> None:
    shape = set_shape(torch.float32)
    alone = gru.build(gru.Config(hidden=6), shape)
    averaged = janossy.build(janossy.Config(base=BASE, orders=5), shape)
    (one,), (five,) = (counts.aggregator_macs(model, shape, [7]).values() for model in (alone, averaged))
    assert five == 5 * one


def test_the_defaults_of_the_base_are_part_of_the_options() -> None:
    """What the cache key holds: changing a default of the base must change it."""
    named, mapped = janossy.Config(base="lstm"), janossy.Config(base={"name": "lstm"})
    assert named == mapped == janossy.Config()
    assert named.base == {"name": "lstm", **dataclasses.asdict(lstm.Config())}
    plugin = resolve("aggregators", {"name": "janossy", "base": BASE, "orders": 2})
    assert plugin.payload()["base"] == {"name": "gru", **dataclasses.asdict(gru.Config(hidden=6))}
    assert canonical(resolve("aggregators", plugin.payload())) == canonical(plugin)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"base": "lstmm"}, "unknown aggregator 'lstmm'; did you mean 'lstm'"),
        ({"base": {"name": "gru", "hiden": 3}}, "aggregator 'gru': unknown option 'hiden'; did you mean 'hidden'"),
        ({"base": {"name": "gru", "hidden": 0}}, "hidden: expected a whole number from 1 to 65536, got 0"),
        ({"base": {"hidden": 3}}, r"expected a plugin name or a mapping with 'name', got \{'hidden': 3\}"),
        ({"base": "mean_vote"}, "base must depend on the order of instances, got 'mean_vote'"),
        ({"base": "set_transformer"}, "got 'set_transformer', which gives the same posterior in every order"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        janossy.Config(**options)
    with pytest.raises(ConfigError, match=message):
        resolve("aggregators", {"name": "janossy", **options})
    with pytest.raises(ConfigError, match="orders: expected a whole number from 1 to 1000, got 0"):
        resolve("aggregators", {"name": "janossy", "orders": 0})


def test_asking_the_base_draws_no_random_numbers() -> None:
    with rng.seeded(0):
        expected = torch.rand(3)
    with rng.seeded(0):
        janossy.Config(base="gru")
        assert torch.equal(torch.rand(3), expected)
