from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import _restore, mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._butterfly import ButterflyLinear, default_k, weights
from sharedlabel.backbones._butterfly_paths import draw_order, weight_counts
from sharedlabel.config import Plugin, resolve
from sharedlabel.errors import CompressionError, ConfigError
from sharedlabel.measurements import counts as cost
from sharedlabel.pruners import _methods, butterfly, magnitude
from sharedlabel.pruners._base import Context

SHAPE = (3, 6, 6)


def network(widths: tuple[int, ...] = (48, 20), bias: bool = True) -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config(widths=widths, bias=bias), SHAPE, 3)


def prune(backbone: Backbone, ratio: float, seed: int = 0, **options: Any) -> Backbone:
    return _methods.prune(
        butterfly, backbone, ratio, butterfly.Config(**options), Context(rng.generator(seed, "prune"))
    )


def replaced(backbone: Backbone) -> dict[str, ButterflyLinear]:
    return {name: module for name, module in backbone.named_modules() if isinstance(module, ButterflyLinear)}


def images(count: int = 5) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=rng.generator(0, "images"))


@pytest.mark.parametrize("widths", [(48, 20), (70,), (33, 65, 17)])
@pytest.mark.parametrize("seed", [0, 1])
def test_parameter_count_is_the_closest_on_the_way(widths: tuple[int, ...], seed: int) -> None:
    """The counts that can be reached, found by asking for many ratios, hold none closer than the one returned."""
    dense = network(widths)
    total, ceiling = cost.parameters(dense), _methods.ceiling(butterfly, dense, butterfly.Config())
    ratios = (1 / torch.linspace(1, 1 / ceiling, 40, dtype=torch.float64)).clamp(max=ceiling).tolist()
    counts = [cost.parameters(prune(dense, ratio, seed)) for ratio in ratios]
    assert counts == sorted(counts, reverse=True)
    for ratio, count in zip(ratios, counts, strict=True):
        assert abs(count - total / ratio) == min(abs(other - total / ratio) for other in counts)


def test_within_one_output_of_one_butterfly() -> None:
    """The most that one more output costs is a new path from every input, or a row of W."""
    dense = network((200, 100))
    total = cost.parameters(dense)
    for ratio in (1.1, 2.0, 4.0, 8.0, 16.0):
        assert abs(cost.parameters(prune(dense, ratio)) - total / ratio) <= max(2 * 108, 200 + 100) / 2


@pytest.mark.parametrize("seed", range(5))
def test_at_the_papers_size_every_butterfly_keeps_log_n_outputs(seed: int) -> None:
    dense, generator = network((64, 32)), rng.generator(seed, "prune")
    left = cost.parameters(dense)
    for n1, n2 in ((108, 64), (64, 32)):
        orders = [(width, default_k(width), draw_order(width, generator)) for width in (n1, n2)]
        counts = [int(weight_counts(width, order)[k - 1]) for width, k, order in orders]
        left += sum(counts) + default_k(n1) * default_k(n2) - n1 * n2
    butterflies = replaced(prune(dense, cost.parameters(dense) / left, seed))
    assert [(layer.inputs.k, layer.outputs.k) for layer in butterflies.values()] == [(7, 6), (6, 5)]


def test_at_the_ceiling_one_output_is_kept_everywhere() -> None:
    dense = network()
    ceiling = _methods.ceiling(butterfly, dense, butterfly.Config())
    pruned = prune(dense, ceiling)
    assert [(layer.inputs.k, layer.outputs.k) for layer in replaced(pruned).values()] == [(1, 1), (1, 1)]
    assert ceiling == cost.parameters(dense) / cost.parameters(pruned)
    # 108 inputs: 108 + 54 + 27 + 14 + 7 + 4 + 2 weights; 48: 48 + 24 + 12 + 6 + 3 + 2; 20: 20 + 10 + 5 + 3 + 2.
    assert [weights(layer) for layer in replaced(pruned).values()] == [216 + 95 + 1, 95 + 40 + 1]


def test_above_the_ceiling_states_it() -> None:
    with pytest.raises(CompressionError, match=r"from 1 to 10.*, got 20: with k = 1 in body.1, body.3 \d+ of 6275"):
        prune(network(), 20.0)


def test_layers_that_would_not_get_smaller_stay_dense() -> None:
    narrow = network((200, 2, 60))
    pruned = prune(narrow, _methods.ceiling(butterfly, narrow, butterfly.Config()))
    assert set(replaced(pruned)) == {"body.1"}
    assert torch.equal(pruned.get_parameter("body.5.weight"), narrow.get_parameter("body.5.weight"))
    mild = prune(network((200, 5)), 1.1)
    assert set(replaced(mild)) == {"body.1"}
    assert all(weights(layer) < layer.in_features * layer.out_features for layer in replaced(mild).values())


def test_only_the_named_layers_are_replaced() -> None:
    pruned = prune(network(), 1.1, layers=("body.3",))
    assert set(replaced(pruned)) == {"body.3"}


def test_from_the_transform_the_core_has_the_size_of_the_dense_weights_and_the_bias_is_kept() -> None:
    dense = network((128, 64))
    nn.init.normal_(dense.get_parameter("body.1.bias"))
    layers = replaced(prune(dense, 2.0))
    assert torch.equal(layers["body.1"].get_parameter("bias"), dense.get_parameter("body.1.bias"))
    for name, layer in layers.items():
        spread = dense.get_parameter(f"{name}.weight").std()
        assert float((layer.core.std() / spread).detach()) == pytest.approx(1, abs=0.1)


def test_projection_is_near_the_dense_network_and_nearer_with_more_weights() -> None:
    dense = network((64, 32))
    weight = dense.get_parameter("body.1.weight").detach()
    errors = [
        float((replaced(prune(dense, ratio, init="project"))["body.1"].dense_weight() - weight).detach().norm())
        for ratio in (8.0, 4.0, 2.0, 1.3)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.8 * float(weight.norm())
    random = replaced(prune(dense, 1.3))["body.1"].dense_weight() - weight
    assert errors[-1] < float(random.detach().norm())


def test_device_type_and_mode_are_those_of_the_layer_and_global_randomness_is_left_alone() -> None:
    dense = network().double().eval()
    before = torch.random.get_rng_state()
    pruned = prune(dense, 3.0)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert pruned(images().double()).dtype == torch.float64
    assert not any(module.training for module in pruned.modules())
    assert all(parameter.dtype == torch.float64 for parameter in pruned.parameters())


def test_restored_from_its_state() -> None:
    plugin: Plugin = resolve("backbones", {"name": "mlp", "widths": [48, 20]})
    pruned = prune(network(), 4.0).eval()
    restored = _restore.restore(plugin, SHAPE, 3, _restore.state(pruned))
    assert torch.equal(restored(images()), pruned(images()))
    assert cost.parameters(restored) == cost.parameters(pruned)


@pytest.mark.parametrize("bias", [True, False])
def test_costs(bias: bool) -> None:
    dense = network((64, 32), bias)
    pruned = prune(dense, 6.0)
    costs, layers = cost.costs(dense, pruned, SHAPE), replaced(pruned).values()
    left = sum(weights(layer) for layer in layers)
    rest = sum(p.numel() for name, p in dense.named_parameters() if name not in {"body.1.weight", "body.3.weight"})
    assert costs.parameters == left + rest
    assert costs.prunable_ratio == (108 * 64 + 64 * 32) / left
    assert costs.sparsity == 1 - left / (108 * 64 + 64 * 32)
    assert all(side.cut == side.depth for layer in layers for side in (layer.inputs, layer.outputs))
    macs = sum(
        layer.in_features * layer.inputs.k + layer.inputs.k * layer.outputs.k + layer.outputs.k * layer.out_features
        for layer in layers
    )
    assert costs.macs_executed == costs.macs_effective == macs + 32 * 3


def test_smaller_network_trains() -> None:
    pruned = prune(network(), 4.0).train()
    optimiser = torch.optim.AdamW(pruned.parameters(), lr=0.003)
    inputs, labels = images(64), torch.arange(64) % 3
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(pruned(inputs), labels)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.7 * losses[0]
    assert all(parameter.grad is not None and parameter.is_leaf for parameter in pruned.parameters())


class _Attentive(nn.Module):
    """A transformer layer, whose linear layers are not only called, before one that is."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(36, 4, batch_first=True)
        self.encoder = nn.TransformerEncoderLayer(36, 4, 72, dropout=0.0, batch_first=True)
        self.recurrent = nn.LSTM(36, 36, batch_first=True)
        self.mix = nn.Linear(36, 64)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        tokens = inputs.flatten(2)
        tokens = self.recurrent(self.encoder(self.attention(tokens, tokens, tokens)[0]))[0]
        mixed: torch.Tensor = self.mix(tokens).mean(1)
        return mixed


def test_attention_and_recurrent_layers_are_left_alone() -> None:
    with rng.seeded(0):
        backbone = Backbone(_Attentive(), nn.Linear(64, 3), SHAPE).eval()
    pruned = prune(backbone, _methods.ceiling(butterfly, backbone, butterfly.Config()))
    assert set(replaced(pruned)) == {"body.mix"}
    with torch.inference_mode():
        assert pruned(images()).shape == (5, 3)


def test_ratio_one_keeps_the_dense_layers() -> None:
    assert not replaced(prune(network(), 1.0))


def _twice() -> Backbone:
    layer = nn.Linear(108, 108)
    return Backbone(nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer), nn.Linear(108, 3), (3, 6, 6))


def test_a_layer_in_two_places_may_stay_dense() -> None:
    layer = nn.Linear(64, 64)
    body = nn.Sequential(nn.Flatten(), nn.Linear(108, 64), layer, nn.ReLU(), layer)
    pruned = prune(Backbone(body, nn.Linear(64, 3), (3, 6, 6)), 1.3, layers=("body.1",))
    assert list(replaced(pruned)) == ["body.1"]


def _masked() -> Backbone:
    return _methods.prune(magnitude, network(), 2.0, magnitude.Config(), Context(torch.Generator()))


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (
            lambda: resnet_cifar.build(resnet_cifar.Config(8, 4), (3, 8, 8), 3),
            {},
            "got no linear layer among 7 layers; use",
        ),
        (lambda: network(()), {}, "got a body without any layer; use"),
        (lambda: network((2,)), {}, "got 1 linear layer too small for that among 1 layer; use"),
        (_twice, {}, "expected linear layers that stand in one place, got 'body.1', which is also body.3; give each"),
        (_twice, {"layers": ("body.1",)}, "got 'body.1', which is also body.3"),
        (lambda: network((2,)), {"layers": ("body.1",)}, "got 'body.1' with 216 weights; a butterfly layer needs 219"),
        (network, {"layers": ("body.2",)}, "got layers=.*'body.2': did you mean 'body..*available: body.1, body.3"),
        (network, {"layers": ("classifier",)}, "'classifier': available: body.1, body.3"),
        (lambda: network((1, 9)), {"layers": ("body.1",)}, r"a butterfly width of 1 in 'body.1' \(108 -> 1\)"),
        (_masked, {}, "got masked layers; start from the dense one"),
        (lambda: prune(network(), 3.0), {}, "got a network with butterfly layers; start from the dense one"),
    ],
)
def test_other_networks_are_refused_with_the_reason(build: Any, options: dict[str, Any], message: str) -> None:
    backbone = build()
    with pytest.raises(CompressionError, match=message):
        prune(backbone, 2.0, **options)
    with pytest.raises(CompressionError, match=message):
        _methods.ceiling(butterfly, backbone, butterfly.Config(**options))


def test_no_layers_at_all_are_refused_by_the_configuration() -> None:
    with pytest.raises(ConfigError, match="layers"):
        resolve("pruners", {"name": "butterfly", "layers": []})
    assert dataclasses.replace(butterfly.Config(), layers=("body.1",)).layers == ("body.1",)
    assert math.isfinite(_methods.ceiling(butterfly, network(), butterfly.Config()))


class ReadDirectly(nn.Module):
    """A linear layer that is called, and one of which only the weight is read, as in Swin's attention."""

    def __init__(self) -> None:
        super().__init__()
        self.called, self.read = nn.Linear(64, 64), nn.Linear(64, 64)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.linear(self.called(images.flatten(1)).relu(), self.read.weight, self.read.bias)


def test_layers_whose_weight_the_network_reads_stay_dense() -> None:
    dense = Backbone(ReadDirectly(), nn.Linear(64, 3), (1, 8, 8))
    pruned = _methods.prune(butterfly, dense, 1.5, butterfly.Config(), Context(rng.generator(0)))
    assert type(pruned.body.called) is ButterflyLinear
    assert type(pruned.body.read) is nn.Linear
    assert pruned(torch.rand(2, 1, 8, 8)).isfinite().all()
    with pytest.raises(CompressionError, match=r"expected names of linear layers in the body, got layers=.*body.rea"):
        _methods.prune(butterfly, dense, 1.5, butterfly.Config(layers=("body.read",)), Context(rng.generator(0)))
