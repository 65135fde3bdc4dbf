"""Layers that compute their weight from other parameters are refused by everything that looks for weights."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from sharedlabel import plugins, rng
from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _channels, _masks, _methods
from sharedlabel.pruners._base import Context

SHAPE = (3, 8, 8)
OLD = "ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"

COMPUTED: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "weight_norm": (
        parametrizations.weight_norm,
        "parametrizations.weight.original0, parametrizations.weight.original1",
    ),
    "spectral_norm": (parametrizations.spectral_norm, "parametrizations.weight.original"),
    "orthogonal": (parametrizations.orthogonal, "parametrizations.weight.original"),
    "old weight_norm": (weight_norm, "weight_g, weight_v"),
    "old spectral_norm": (spectral_norm, "weight_orig"),
    "prune of torch": (lambda layer: prune.random_unstructured(layer, "weight", 0.5), "weight_orig"),
}


def network() -> Backbone:
    with rng.seeded(0):
        return resnet_cifar.build(resnet_cifar.Config(8, 4), SHAPE, 3)


def prune_by(name: str, backbone: Backbone) -> Backbone:
    pruner = plugins.load("pruners", name)
    images = torch.rand(6, *SHAPE, generator=rng.generator(0, "images"))
    context = Context(rng.generator(0), images, torch.arange(6) % 3, images, lambda _: None)
    pruned: Backbone = _methods.prune(pruner, backbone, 1.0 if name == "none" else 1.5, pruner.Config(), context)
    return pruned


@pytest.mark.filterwarnings(OLD)
@pytest.mark.parametrize("kind", COMPUTED)
@pytest.mark.parametrize("name", sorted({*plugins.available("pruners")} - {"butterfly"}))
def test_every_pruner_names_the_layer(name: str, kind: str) -> None:
    compute, others = COMPUTED[kind]
    backbone = network()
    compute(backbone.get_submodule("body.3.residual.0"))
    expected = (
        f"whose weight is a parameter, got 'body.3.residual.0', which computes its weight from {others}; undo that"
    )
    with pytest.raises(CompressionError, match=expected):
        prune_by(name, backbone)


def test_the_classifier_too_and_what_counts_and_follows_weights() -> None:
    backbone, plain = network(), network()
    parametrizations.weight_norm(backbone.classifier)
    expected = "expected layers whose weight is a parameter, got 'classifier', which computes its weight from param"
    for use in (
        lambda: _masks.prunable(backbone),
        lambda: _channels.groups(backbone),
        lambda: counts.costs(plain, backbone, SHAPE),
        lambda: counts.costs(backbone, plain, SHAPE),
    ):
        with pytest.raises(CompressionError, match=expected):
            use()


def test_butterfly_layers_are_not_made_of_them() -> None:
    with rng.seeded(0):
        backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(192, 64)), nn.Linear(64, 3), SHAPE)
    parametrizations.weight_norm(backbone.body[1])
    with pytest.raises(CompressionError, match=r"whose weight is a parameter, got 'body.1', which computes"):
        prune_by("butterfly", backbone)


def test_undone_it_can_be_pruned() -> None:
    backbone = network()
    layer = backbone.get_submodule("body.3.residual.0")
    nn.utils.parametrize.remove_parametrizations(parametrizations.weight_norm(layer), "weight")
    assert _masks.removed(prune_by("magnitude", backbone)) == _masks.weights_to_remove(network(), 1.5)


@pytest.mark.parametrize("name", ["magnitude", "sipp", "synflow"])
def test_a_bias_that_is_computed_is_refused_too(name: str) -> None:
    with rng.seeded(0):
        backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(192, 64)), nn.Linear(64, 3), SHAPE)
    nn.utils.parametrize.register_parametrization(backbone.body[1], "bias", nn.Softplus())
    expected = r"whose bias is a parameter, got 'body.1', which computes its bias from parametrizations.bias.original;"
    with pytest.raises(CompressionError, match=expected):
        prune_by(name, backbone)
