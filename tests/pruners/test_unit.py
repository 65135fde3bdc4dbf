from __future__ import annotations

import copy
from typing import Literal

import pytest
import torch
from torch import nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts as cost
from sharedlabel.pruners import _methods, magnitude, unit
from sharedlabel.pruners._base import Context

CONTEXT = Context(torch.Generator())
SCOPES: tuple[Literal["global", "layer"], ...] = ("global", "layer")


def network(widths: tuple[int, ...] = (12, 7), bias: bool = True) -> Backbone:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config(widths=widths, bias=bias), (1, 4, 4), 3)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter)
    return backbone


def linear(backbone: Backbone) -> list[nn.Linear]:
    return [module for module in backbone.modules() if isinstance(module, nn.Linear)]


def kept_rows(dense: nn.Linear, small: nn.Linear, columns: torch.Tensor) -> torch.Tensor:
    """Find the rows of the dense layer that are the rows of the small one."""
    equal = (dense.weight[:, columns][None] == small.weight[:, None]).all(-1)
    assert (equal.sum(1) == 1).all()
    return equal.int().argmax(1)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ratio", [1.0, 1.5, 3.0, 8.0])
def test_same_outputs_as_the_network_with_the_units_zeroed(
    ratio: float, bias: bool, scope: Literal["global", "layer"]
) -> None:
    dense = network(bias=bias)
    pruned = _methods.prune(unit, dense, ratio, unit.Config(scope), CONTEXT)
    zeroed, columns = copy.deepcopy(dense), torch.arange(16)
    for layer, small in zip(linear(zeroed)[:-1], linear(pruned)[:-1], strict=True):
        rows = kept_rows(layer, small, columns)
        gone = torch.ones(layer.out_features, dtype=torch.bool)
        gone[rows] = False
        with torch.no_grad():
            layer.weight[gone] = 0
            if layer.bias is not None:
                layer.bias[gone] = 0
        columns = rows
    images = torch.rand(9, 1, 4, 4)
    torch.testing.assert_close(pruned(images), zeroed(images), rtol=1e-5, atol=1e-5)
    assert pruned.embedding_dim == pruned.embed(images).shape[1] == linear(pruned)[-2].out_features


@pytest.mark.parametrize("widths", [(12, 7), (9,), (5, 30, 4)])
@pytest.mark.parametrize("scope", SCOPES)
def test_parameter_count_is_the_closest_on_the_way(widths: tuple[int, ...], scope: Literal["global", "layer"]) -> None:
    """The counts that can be reached, found by asking for many ratios, hold none closer than the one returned."""
    dense = network(widths)
    total, ceiling = cost.parameters(dense), _methods.ceiling(unit, dense, unit.Config(scope))
    ratios = torch.linspace(1, ceiling, 20).double().clamp(max=ceiling).tolist()
    counts = [cost.parameters(_methods.prune(unit, dense, ratio, unit.Config(scope), CONTEXT)) for ratio in ratios]
    assert counts == sorted(counts, reverse=True)
    for ratio, count in zip(ratios, counts, strict=True):
        assert abs(count - total / ratio) == min(abs(other - total / ratio) for other in counts)


@pytest.mark.parametrize("scope", SCOPES)
def test_at_the_ceiling_one_unit_is_left_in_every_layer(scope: Literal["global", "layer"]) -> None:
    dense = network()
    ceiling = _methods.ceiling(unit, dense, unit.Config(scope))
    pruned = _methods.prune(unit, dense, ceiling, unit.Config(scope), CONTEXT)
    assert [layer.out_features for layer in linear(pruned)] == [1, 1, 3]
    assert ceiling == cost.parameters(dense) / (17 + 2 + 6)
    for layer, small in zip(linear(dense)[:1], linear(pruned)[:1], strict=True):
        assert torch.equal(small.weight[0], layer.weight[layer.weight.norm(dim=1).argmax()])


def test_layer_scope_takes_the_same_share_and_global_the_smallest_norms() -> None:
    dense = network((20, 10))
    with torch.no_grad():
        linear(dense)[1].weight.mul_(100)
    shared = _methods.prune(unit, dense, 2.0, unit.Config("layer"), CONTEXT)
    widths = [layer.out_features for layer in linear(shared)]
    assert abs(widths[0] / 20 - widths[1] / 10) <= 0.5 / 20 + 0.5 / 10
    ranked = _methods.prune(unit, dense, 2.0, unit.Config("global"), CONTEXT)
    assert linear(ranked)[1].out_features == 10
    norms = linear(dense)[0].weight.norm(dim=1)
    rows = kept_rows(linear(dense)[0], linear(ranked)[0], torch.arange(16))
    assert set(rows.tolist()) == set(norms.topk(len(rows)).indices.tolist())


def test_smaller_network_trains() -> None:
    pruned = _methods.prune(unit, network(), 2.0, unit.Config(), CONTEXT)
    pruned(torch.rand(4, 1, 4, 4)).square().sum().backward()
    assert all(parameter.grad is not None and parameter.is_leaf for parameter in pruned.parameters())


def test_score_of_a_stream_is_the_norm_of_all_weights_that_write_it() -> None:
    """Brute force over the filters of a residual stream: its smallest channels go, wherever they are written."""
    with rng.seeded(0):
        dense = resnet_cifar.build(resnet_cifar.Config(8, 6), (3, 8, 8), 3)
    first, second = (dense.get_submodule(name).weight.detach() for name in ("body.0", "body.3.residual.3"))
    norms = torch.tensor([(float(first[c].square().sum()) + float(second[c].square().sum())) ** 0.5 for c in range(6)])
    pruned = _methods.prune(unit, dense, 2.0, unit.Config(), CONTEXT)
    kept = kept_filters(first, pruned.get_submodule("body.0").weight)
    assert 1 <= len(kept) < 6
    assert set(kept) == set(norms.topk(len(kept)).indices.tolist())


def kept_filters(dense: torch.Tensor, small: torch.Tensor) -> list[int]:
    equal = (dense[None] == small[:, None]).flatten(2).all(-1)
    assert (equal.sum(1) == 1).all()
    return equal.int().argmax(1).tolist()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: network(()), "got a body without a linear layer or convolution"),
        (
            lambda: _methods.prune(magnitude, network(), 2.0, magnitude.Config(), CONTEXT),
            "got masked layers; start from the dense",
        ),
    ],
)
def test_other_networks_are_refused_with_the_reason(build: object, message: str) -> None:
    assert callable(build)
    with pytest.raises(CompressionError, match=message):
        _methods.prune(unit, build(), 2.0, unit.Config(), CONTEXT)


def test_above_the_ceiling_states_it() -> None:
    with pytest.raises(CompressionError, match=r"from 1 to 12.76, got 13: with one channel in every layer 25 of 319"):
        _methods.prune(unit, network(), 13.0, unit.Config(), CONTEXT)


def test_weights_that_are_not_finite_are_refused() -> None:
    dense = network()
    with torch.no_grad():
        linear(dense)[1].weight[0, 0] = torch.nan
    with pytest.raises(CompressionError, match=r"got 1 NaN or infinite of 7 in layer 'body.3'"):
        _methods.prune(unit, dense, 2.0, unit.Config(), CONTEXT)
