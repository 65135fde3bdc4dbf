from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _absolute, _masks, _methods, _scores, magnitude, synflow
from sharedlabel.pruners._base import Context

CONTEXT = Context(torch.Generator())


def network(bias: bool = True, widths: tuple[int, ...] = (10, 6)) -> Backbone:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config(widths, bias=bias), (1, 4, 4), 3)
        for module in backbone.modules():
            if isinstance(module, nn.Linear) and bias:
                nn.init.normal_(module.bias)
    return backbone


def convolutional() -> Backbone:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(8, 4, "projection"), (3, 8, 8), 3)
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight.data, module.bias.data, module.running_mean):
                    nn.init.normal_(tensor)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return backbone


def flow(backbone: Backbone) -> dict[str, Tensor]:
    return synflow.synaptic_flow(*_absolute.absolute(backbone), _masks.kept(backbone))


def brute_force(backbone: Backbone) -> dict[str, Tensor]:
    """Make everything positive in place and differentiate the whole network in float64."""
    positive = copy.deepcopy(backbone).double().eval()
    with torch.no_grad():
        for tensor in positive.state_dict().values():
            tensor.abs_()
    ones = torch.ones(1, *backbone.image_shape, dtype=torch.float64)
    total = positive.classify(positive.body(ones).flatten(1)).sum()
    total.backward()
    layers = _masks.prunable(positive)
    return {name: (layer.weight.grad * layer.weight).detach() / total.item() for name, layer in layers.items()}


@pytest.mark.parametrize("backbone", [network(), network(bias=False), convolutional()], ids=["bias", "no bias", "conv"])
def test_scores_are_those_of_the_whole_network_at_once(backbone: Backbone) -> None:
    scores, expected = flow(backbone), brute_force(backbone)
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        torch.testing.assert_close(score.double(), expected[name], rtol=1e-6, atol=0)


def test_flow_is_conserved() -> None:
    """Without biases, what flows into a unit flows out of it, and every layer's scores sum to the whole."""
    backbone = network(bias=False, widths=(10, 6, 8))
    scores = flow(backbone)
    for score in scores.values():
        assert float(score.double().sum()) == pytest.approx(1, rel=1e-6)
    for one, other in zip(list(scores.values())[:-1], list(scores.values())[1:], strict=True):
        torch.testing.assert_close(one.sum(1), other.sum(0), rtol=1e-5, atol=1e-9)


def test_statistics_of_the_images_do_not_matter() -> None:
    backbone = network()
    expected = flow(backbone)
    backbone.normalize.mean.fill_(0.4)
    backbone.normalize.std.fill_(0.2)
    assert all(torch.equal(score, expected[name]) for name, score in flow(backbone).items())


@pytest.mark.parametrize("rounds", [1, 7])
def test_rounds_prune_and_score_anew(rounds: int) -> None:
    backbone = network()
    pruned = _methods.prune(synflow, backbone, 4.0, synflow.Config(rounds), CONTEXT)
    weights = 220
    end, current = weights - _masks.weights_to_remove(backbone, 4.0), copy.deepcopy(backbone)
    for step in range(1, rounds + 1):
        left = round(weights * (end / weights) ** (step / rounds))
        ratio = 257 / (257 - weights + left)
        current = _masks.masked_copy(current, _scores.keep_by_scores(current, ratio, brute_force(current), "global"))
    assert all(torch.equal(mask, _masks.kept(current)[name]) for name, mask in _masks.kept(pruned).items())
    for name, layer in _masks.prunable(pruned).items():
        assert torch.equal(layer.weight, _masks.prunable(backbone)[name].weight * _masks.kept(pruned)[name])


def test_no_layer_is_lost_where_magnitude_loses_one() -> None:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config((12, 12, 12, 12), bias=False), (1, 8, 8), 3)
        for layer in _masks.prunable(backbone).values():
            nn.init.normal_(layer.weight, std=0.5)
        nn.init.normal_(_masks.prunable(backbone)["body.5"].weight, std=0.005)
    total = sum(parameter.numel() for parameter in backbone.parameters())
    ratio = total / (36 + 14)  # 14 weights for 4 layers
    assert "body.5" in _masks.collapsed_layers(_methods.prune(magnitude, backbone, ratio, magnitude.Config(), CONTEXT))
    one_shot = _methods.prune(synflow, backbone, ratio, synflow.Config(rounds=1), CONTEXT)
    pruned = _methods.prune(synflow, backbone, ratio, synflow.Config(), CONTEXT)
    assert _masks.removed(pruned) == _masks.removed(one_shot) == total - 50
    assert _masks.collapsed_layers(pruned) == ()
    assert float(sum(brute_force(pruned)["body.1"].flatten())) == pytest.approx(1)


def test_a_network_without_any_flow_is_pruned_all_the_same() -> None:
    backbone = network(bias=False)
    with torch.no_grad():
        _masks.prunable(backbone)["body.3"].weight.zero_()
    pruned = _methods.prune(synflow, backbone, 3.0, synflow.Config(5), CONTEXT)
    assert _masks.removed(pruned) == _masks.weights_to_remove(backbone, 3.0)


def test_a_flow_beyond_float64_is_refused() -> None:
    backbone = network(widths=(4,) * 10)
    with torch.no_grad():
        for layer in _masks.prunable(backbone).values():
            layer.weight.fill_(1e38)
    with pytest.raises(CompressionError, match=r"expected a synaptic flow that fits float64, got inf: products of abs"):
        _methods.prune(synflow, backbone, 2.0, synflow.Config(), CONTEXT)


def test_large_flows_fit() -> None:
    """In float32 this flow would be infinite."""
    backbone = network(widths=(4,) * 10)
    with torch.no_grad():
        for layer in _masks.prunable(backbone).values():
            layer.weight.mul_(1e12)
    assert all(score.isfinite().all() for score in flow(backbone).values())


def test_pruned_before_training() -> None:
    assert synflow.SCHEDULE.when == "initial"
