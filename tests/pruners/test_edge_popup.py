from __future__ import annotations

import math
import pickle
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _masks, _methods, _scores, edge_popup, magnitude
from sharedlabel.pruners._base import Context


def network() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((24, 12)), (1, 4, 4), 3)


def convolutional() -> Backbone:
    with rng.seeded(0):
        return resnet_cifar.build(resnet_cifar.Config(8, 4, "projection"), (3, 8, 8), 3)


def data(backbone: Backbone, count: int = 60) -> tuple[Tensor, Tensor]:
    """Images of which each class is brighter in another part."""
    labels = torch.arange(count) % 3
    images = torch.rand(count, *backbone.image_shape, generator=rng.generator(0, "images"))
    for label in range(3):
        images[labels == label, :, label] += 1
    return images, labels


class Trainer:
    """Train what requires a gradient, and remember the network."""

    def __init__(self, steps: int = 5) -> None:
        self.steps = steps
        self.seen: Backbone | None = None

    def __call__(self, network: Backbone) -> None:
        self.seen = network
        images, labels = data(network)
        optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5, momentum=0.9)
        network.train()
        for _ in range(self.steps):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()


def prune(
    backbone: Backbone, ratio: float, train: Trainer, config: edge_popup.Config | None = None, seed: int = 0
) -> Backbone:
    return _methods.prune(
        edge_popup, backbone, ratio, config or edge_popup.Config(), Context(rng.generator(seed), train=train)
    )


def accuracy(network: Backbone) -> float:
    images, labels = data(network)
    return float((network.eval()(images).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("make", [network, convolutional])
def test_weights_keep_their_initial_values(make: type[Backbone]) -> None:
    backbone = make()
    pruned = prune(backbone, 2.0, Trainer(), edge_popup.Config("initial"))
    for name, layer in _masks.prunable(pruned).items():
        assert torch.equal(layer.weight, _masks.prunable(backbone)[name].weight * _masks.kept(pruned)[name])


@pytest.mark.parametrize("scaled", [True, False])
def test_signed_constants(scaled: bool) -> None:
    backbone = convolutional()
    pruned = prune(backbone, 4.0, Trainer(), edge_popup.Config(scaled=scaled))
    for name, layer in _masks.prunable(pruned).items():
        keep, original = _masks.kept(pruned)[name], _masks.called_layers(backbone)[name]
        inputs = original.in_channels // original.groups * math.prod(original.kernel_size)
        share = float(keep.double().mean()) if scaled else 1.0
        expected = original.weight.sign() * math.sqrt(2 / (inputs * share)) * keep
        torch.testing.assert_close(layer.weight, expected)


def test_every_layer_keeps_the_same_share_and_the_total_is_exact() -> None:
    backbone = network()
    pruned = prune(backbone, 2.5, Trainer(1))
    assert _masks.removed(pruned) == _masks.weights_to_remove(backbone, 2.5)
    budgets = _scores.layer_budgets(backbone, 2.5)
    assert {name: int(mask.sum()) for name, mask in _masks.kept(pruned).items()} == budgets
    shares = [budgets[name] / layer.weight.numel() for name, layer in _masks.prunable(backbone).items()]
    assert max(shares) - min(shares) < 0.01


def test_the_pruned_network_is_the_trained_one_and_has_nothing_left_to_train() -> None:
    backbone, train = convolutional(), Trainer()
    pruned = prune(backbone, 2.0, train)
    assert not any(parameter.requires_grad for parameter in pruned.parameters())
    assert type(pruned.body[0]) is nn.Conv2d
    assert train.seen is not None
    images, _ = data(backbone)
    torch.testing.assert_close(pruned.eval()(images), train.seen.eval()(images))
    assert not torch.equal(pruned.body[1].running_mean, backbone.body[1].running_mean)


def test_only_scores_are_trained_and_the_network_can_be_pickled() -> None:
    train = Trainer()
    prune(convolutional(), 2.0, train)
    assert train.seen is not None
    trainable = [name for name, parameter in train.seen.named_parameters() if parameter.requires_grad]
    assert trainable == [f"{name}.scores" for name in _masks.prunable(convolutional())]
    images, _ = data(train.seen)
    again = pickle.loads(pickle.dumps(train.seen))
    assert torch.equal(again.eval()(images), train.seen.eval()(images))


def test_the_gradient_goes_straight_through() -> None:
    """It is that of a mask between 0 and 1, times the sign of the score, also where the weight is not in use."""
    layer = nn.Linear(6, 4).requires_grad_(False)
    popup = edge_popup._Popup(layer, 10, rng.generator(0))
    inputs = torch.rand(5, 6)
    popup(inputs).square().sum().backward()
    mask = popup.chosen().detach().requires_grad_()
    nn.functional.linear(inputs, layer.weight * mask, layer.bias).square().sum().backward()
    assert int(mask.sum()) == 10
    assert popup.scores.grad is not None
    torch.testing.assert_close(popup.scores.grad, mask.grad * popup.scores.sign())
    assert popup.scores.grad[mask == 0].all()


def test_the_highest_absolute_scores_are_used() -> None:
    popup = edge_popup._Popup(nn.Linear(6, 4), 7, rng.generator(0))
    chosen = popup.chosen().flatten()
    assert set(chosen.nonzero().flatten().tolist()) == set(popup.scores.abs().flatten().topk(7).indices.tolist())
    assert (popup.scores.flatten()[chosen == 1] < 0).any()


def test_choosing_weights_learns() -> None:
    backbone = network()
    before = accuracy(prune(backbone, 2.0, Trainer(0)))
    assert accuracy(prune(backbone, 2.0, Trainer(60))) > max(0.9, before + 0.2)


def test_layers_that_were_masked_before() -> None:
    once = _methods.prune(magnitude, network(), 1.5, magnitude.Config(), Context(torch.Generator()))
    pruned = prune(once, 2.0, Trainer())
    for name, mask in _masks.kept(pruned).items():
        assert not (mask & ~_masks.kept(once)[name]).any()
    assert _masks.removed(pruned) == _masks.weights_to_remove(network(), 2.0)


def test_at_ratio_one_the_network_stays_as_it_is() -> None:
    backbone, train = convolutional(), Trainer()
    same = prune(backbone, 1.0, train)
    assert train.seen is None
    assert not list(_masks.masked(same))
    assert all(parameter.requires_grad for parameter in same.parameters())
    assert all(torch.equal(tensor, backbone.state_dict()[name]) for name, tensor in same.state_dict().items())


def test_initial_scores_come_from_the_generator() -> None:
    one, same, other = (prune(network(), 2.0, Trainer(0), seed=seed) for seed in (0, 0, 1))
    keep = [torch.cat([mask.flatten() for mask in _masks.kept(pruned).values()]) for pruned in (one, same, other)]
    assert torch.equal(keep[0], keep[1])
    assert not torch.equal(keep[0], keep[2])


def test_scores_that_are_not_finite_are_refused() -> None:
    def diverge(network: Backbone) -> None:
        network.get_parameter("body.3.scores").data[2, 4] = torch.nan

    context = replace(Context(rng.generator(0)), train=diverge)
    with pytest.raises(CompressionError, match=r"got 1 NaN or infinite of 288 in layer 'body.3'"):
        _methods.prune(edge_popup, network(), 2.0, edge_popup.Config(), context)


def test_without_a_training_function() -> None:
    with pytest.raises(CompressionError, match=r"expected a way to train the network, got none; pass Context\(train"):
        _methods.prune(edge_popup, network(), 2.0, edge_popup.Config(), Context(rng.generator(0)))


def test_pruned_before_training() -> None:
    assert edge_popup.SCHEDULE.when == "initial"
