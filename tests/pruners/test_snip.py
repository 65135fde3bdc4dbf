from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import _examples, _masks, _methods, snip
from sharedlabel.pruners._base import Context


def network() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((5, 4)), (1, 3, 3), 3).double()


def convolutional() -> Backbone:
    with rng.seeded(0):
        return resnet_cifar.build(resnet_cifar.Config(8, 4, "projection"), (3, 8, 8), 3).double()


def context(network: Backbone, count: int = 10) -> Context:
    images = torch.rand(count, *network.image_shape, dtype=torch.float64, generator=rng.generator(0, "images"))
    return Context(rng.generator(0), images, torch.arange(count) % 3)


def loss(network: Backbone, given: Context) -> Tensor:
    assert given.images is not None
    return nn.functional.cross_entropy(network(given.images), given.labels)


@torch.no_grad()
def connection_sensitivity(backbone: Backbone, given: Context, step: float = 1e-5) -> dict[str, Tensor]:
    """Differentiate the loss by a factor in front of every weight, one at a time, with two evaluations."""
    sensitivity = {}
    for name, layer in _masks.prunable(backbone).items():
        weight = layer.weight.data.view(-1)
        sensitivity[name] = torch.zeros_like(layer.weight)
        for index in range(len(weight)):
            original = float(weight[index])
            weight[index] = original * (1 + step)
            up = float(loss(backbone, given))
            weight[index] = original * (1 - step)
            down = float(loss(backbone, given))
            weight[index] = original
            sensitivity[name].view(-1)[index] = abs(up - down) / (2 * step)
    return sensitivity


@pytest.mark.parametrize("batch", [128, 4])
def test_scores_are_those_of_finite_differences(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    """Over one batch and over several: gradients are summed with their signs before the absolute value is taken."""
    monkeypatch.setattr(_examples, "_BATCH", batch)
    backbone = network()
    scores = snip.scores(backbone, snip.Config(), context(backbone))
    expected = connection_sensitivity(backbone, context(backbone))
    assert scores.keys() == expected.keys()
    for name, score in scores.items():
        torch.testing.assert_close(score, expected[name], rtol=1e-5, atol=1e-9)


def test_only_the_first_examples_are_used() -> None:
    backbone = network()
    few = snip.scores(backbone, snip.Config(examples=3), context(backbone))
    expected = snip.scores(backbone, snip.Config(), context(backbone, 3))
    assert all(torch.equal(score, expected[name]) for name, score in few.items())


@pytest.mark.parametrize("statistics", ["batch", "running"])
def test_batch_normalisation_uses_the_statistics_asked_for(statistics: str) -> None:
    backbone = convolutional()
    scores = snip.scores(backbone, snip.Config(statistics=statistics), context(backbone))
    reference = copy.deepcopy(backbone).train(statistics == "batch")
    loss(reference, context(backbone)).backward()
    for name, layer in _masks.prunable(reference).items():
        torch.testing.assert_close(scores[name], (layer.weight.grad * layer.weight).detach().abs())


def test_the_weights_of_smallest_sensitivity_go() -> None:
    backbone = network()
    pruned = _methods.prune(snip, backbone, 2.0, snip.Config(), context(backbone))
    scores = snip.scores(backbone, snip.Config(), context(backbone))
    keep = _masks.kept(pruned)
    kept = torch.cat([scores[name][mask] for name, mask in keep.items()])
    gone = torch.cat([scores[name][~mask] for name, mask in keep.items()])
    assert len(gone) == _masks.weights_to_remove(backbone, 2.0)
    assert kept.min() >= gone.max()
    for name, layer in _masks.prunable(pruned).items():
        assert torch.equal(layer.weight, _masks.prunable(backbone)[name].weight * keep[name])


def test_bytes_are_taken_as_they_are() -> None:
    backbone = network().float()
    images = torch.randint(0, 256, (6, 1, 3, 3), dtype=torch.uint8, generator=rng.generator(1))
    labels = torch.arange(6) % 3
    scores = snip.scores(backbone, snip.Config(), Context(rng.generator(0), images, labels))
    same = snip.scores(backbone, snip.Config(), Context(rng.generator(0), images / 255, labels))
    for name, score in scores.items():
        torch.testing.assert_close(score, same[name])


def test_pruned_before_training() -> None:
    assert snip.SCHEDULE.when == "initial"
