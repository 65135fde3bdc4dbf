from __future__ import annotations

import itertools
from typing import Literal

import pytest
import torch
import torch_pruning
from torch import nn

from sharedlabel import rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _methods, filter_l1
from sharedlabel.pruners._base import Context, rounded_down

CONTEXT = Context(torch.Generator())
SHAPE = (3, 8, 8)


def plain() -> Backbone:
    """Three convolutions and a linear layer, as in VGG; parameters have no special values."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise((3, 8, 12, 10)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    layers += [nn.MaxPool2d(4), nn.Flatten(), nn.Linear(40, 9), nn.ReLU()]
    with rng.seeded(0):
        backbone = Backbone(nn.Sequential(*layers), nn.Linear(9, 4), SHAPE)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter)
    return backbone.eval()


def widths(backbone: Backbone) -> dict[str, int]:
    return {
        name: module.weight.shape[0]
        for name, module in backbone.body.named_modules(prefix="body")
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }


def pruned_by_torch_pruning(backbone: Backbone, kept: dict[str, int]) -> Backbone:
    """Remove as many filters of each layer as in `kept`, by the other library, filters' own L1 norms only."""
    # Half a channel fewer: the library rounds the number that stays down.
    shares = {
        backbone.get_submodule(name): (width - kept[name] - 0.5) / width for name, width in widths(backbone).items()
    }
    torch_pruning.pruner.MagnitudePruner(
        backbone,
        torch.rand(1, *SHAPE),
        importance=torch_pruning.importance.MagnitudeImportance(p=1, group_reduction="first", normalizer=None),
        pruning_ratio_dict=shares,
        ignored_layers=[backbone.classifier],
    ).step()
    return backbone


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("ratio", [1.5, 3.0, 8.0])
def test_same_network_as_torch_pruning(ratio: float, scope: Literal["global", "layer"]) -> None:
    pruned = _methods.prune(filter_l1, plain(), ratio, filter_l1.Config(scope), CONTEXT)
    expected = pruned_by_torch_pruning(plain(), widths(pruned))
    assert widths(pruned) == widths(expected)
    ours, theirs = pruned.state_dict(), expected.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_filters_of_smallest_sum_go_with_all_that_belongs_to_them() -> None:
    """By loops: filters, biases, entries of normalisation, slices of the next layer, blocks behind the flattening."""
    dense = plain()
    pruned = _methods.prune(filter_l1, dense, 2.5, filter_l1.Config(), CONTEXT)
    left = {}
    for name, width in widths(pruned).items():
        weight = dense.get_submodule(name).weight.detach()
        sums = [sum(abs(float(value)) for value in row.flatten()) for row in weight]
        left[name] = sorted(sorted(range(len(sums)), key=lambda i, sums=sums: -sums[i])[:width])
    columns = [0, 1, 2]
    for name, norm in (("body.0", "body.1"), ("body.3", "body.4"), ("body.6", "body.7")):
        rows = left[name]
        assert torch.equal(pruned.get_submodule(name).weight, dense.get_submodule(name).weight[rows][:, columns])
        assert torch.equal(pruned.get_submodule(name).bias, dense.get_submodule(name).bias[rows])
        for key in ("weight", "bias", "running_mean", "running_var"):
            assert torch.equal(getattr(pruned.get_submodule(norm), key), getattr(dense.get_submodule(norm), key)[rows])
        columns = rows
    blocks = [4 * channel + position for channel in columns for position in range(4)]
    linear = dense.get_submodule("body.11").weight[left["body.11"]][:, blocks]
    assert torch.equal(pruned.get_submodule("body.11").weight, linear)
    assert torch.equal(pruned.classifier.weight, dense.classifier.weight[:, left["body.11"]])
    assert torch.equal(pruned.classifier.bias, dense.classifier.bias)


def test_layer_scope_takes_the_same_share_of_every_layer() -> None:
    dense = plain()
    with torch.no_grad():
        dense.get_submodule("body.3").weight.mul_(100)
    shared = widths(_methods.prune(filter_l1, dense, 3.0, filter_l1.Config("layer"), CONTEXT))
    shares = [(shared[name] / width, width) for name, width in widths(dense).items()]
    for (share, width), (other, another) in itertools.combinations(shares, 2):
        assert abs(share - other) <= 0.5 / width + 0.5 / another + 1e-12
    assert widths(_methods.prune(filter_l1, dense, 3.0, filter_l1.Config("global"), CONTEXT))["body.3"] == 12


def test_sums_are_added_where_branches_are() -> None:
    with rng.seeded(0):
        dense = resnet_cifar.build(resnet_cifar.Config(8, 6, "projection"), SHAPE, 3)
    names = ("body.4.residual.3", "body.4.shortcut.0")
    sums = sum(dense.get_submodule(name).weight.detach().abs().sum((1, 2, 3)) for name in names)
    pruned = _methods.prune(filter_l1, dense, 2.0, filter_l1.Config(), CONTEXT)
    norm = pruned.get_submodule("body.4.shortcut.1")
    assert isinstance(sums, torch.Tensor)
    kept = sums.topk(norm.num_features).indices.sort().values
    inputs = pruned.get_submodule("body.4.shortcut.0").in_channels
    assert (norm.num_features, inputs) != (12, 6)
    reading = dense.get_submodule("body.5.shortcut.0").weight[:, kept]
    left = pruned.get_submodule("body.5.shortcut.0").weight
    assert all(any(torch.equal(row, other) for other in reading) for row in left)


@pytest.mark.parametrize("ratio", [2.0, 32.0])
def test_ratio_is_met_through_residual_connections(ratio: float) -> None:
    dense = resnet_cifar.build(resnet_cifar.Config(8, 16), (3, 32, 32), 10)
    pruned = _methods.prune(filter_l1, dense, ratio, filter_l1.Config(), CONTEXT)
    assert counts.parameters(dense) / counts.parameters(pruned) == pytest.approx(ratio, rel=0.03)


def test_above_the_ceiling_is_refused_with_the_reason() -> None:
    dense = plain()
    ceiling = _methods.ceiling(filter_l1, dense, filter_l1.Config())
    with pytest.raises(
        CompressionError, match=rf"from 1 to {rounded_down(ceiling)}, got 999: with one channel in every layer"
    ):
        _methods.prune(filter_l1, dense, 999.0, filter_l1.Config(), CONTEXT)


def test_weights_that_are_not_finite_are_refused() -> None:
    dense = plain()
    with torch.no_grad():
        dense.get_submodule("body.3").weight[2] = torch.inf
    with pytest.raises(CompressionError, match=r"got 1 NaN or infinite of 12 in layer 'body.3'"):
        _methods.prune(filter_l1, dense, 2.0, filter_l1.Config(), CONTEXT)
