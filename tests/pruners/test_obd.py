from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _examples, _masks, _methods, _scores, obd
from sharedlabel.pruners._base import Context

SHAPE, CLASSES = (1, 3, 3), 3


class Body(nn.Module):
    """Convolutions with groups and batch normalisation, then a linear layer on every position of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, stride=2, groups=2, padding=1, bias=False)
        self.positions = nn.Linear(4, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.grouped(self.norm(self.first(images)).relu()).relu()
        return self.positions(features.flatten(2).transpose(1, 2)).relu().mean(1)


def convolutional() -> Backbone:
    with rng.seeded(0):
        return Backbone(Body(), nn.Linear(5, CLASSES), SHAPE).double()


def softmax_regression() -> Backbone:
    """Its logits are linear in the weights: the Hessian is the Fisher information, whatever the labels."""
    with rng.seeded(0):
        body = nn.Sequential(nn.Flatten(), nn.Linear(9, 4, bias=False))
        return Backbone(body, nn.Linear(4, CLASSES), SHAPE).double()


def images(count: int) -> Tensor:
    return torch.rand(count, *SHAPE, dtype=torch.float64, generator=rng.generator(0, "images")) * 2 - 0.5


def context(count: int, seed: int = 0) -> Context:
    return Context(rng.generator(seed), images(count))


@pytest.mark.parametrize("batch", [128, 5])
def test_curvature_is_the_mean_over_labels_of_one_example_at_a_time(
    monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(_examples, "_BATCH", batch)
    backbone = convolutional()
    curvature = obd.fisher_diagonal(backbone, obd.Config(), context(12))
    reference = copy.deepcopy(backbone).eval()
    expected = {name: torch.zeros_like(layer.weight) for name, layer in _masks.prunable(reference).items()}
    for image, label in itertools.product(images(12), range(CLASSES)):
        log_p = reference(image[None]).log_softmax(1)[0, label]
        reference.zero_grad()
        log_p.backward()
        for name, layer in _masks.prunable(reference).items():
            expected[name] += log_p.detach().exp() * layer.weight.grad**2 / 12
    assert curvature.keys() == expected.keys()
    for name, diagonal in curvature.items():
        torch.testing.assert_close(diagonal, expected[name])


def test_curvature_is_the_diagonal_of_the_hessian() -> None:
    """By double backward, for labels of which none has anything to do with the images."""
    backbone = softmax_regression()
    curvature = obd.fisher_diagonal(backbone, obd.Config(), context(5))["body.1"]
    weight = backbone.body[1].weight
    loss = nn.functional.cross_entropy(backbone(images(5)), torch.tensor([0, 2, 0, 1, 1]))
    (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
    rows = [torch.autograd.grad(part, weight, retain_graph=True)[0].flatten() for part in gradient.flatten()]
    exact = torch.stack(rows).diagonal().view_as(weight)
    torch.testing.assert_close(curvature, exact, rtol=1e-10, atol=1e-14)


def test_saliency_computed_by_hand() -> None:
    """One image x = 2, logits (w x, 0): d log p_0 / dw = x p_1 and d log p_1 / dw = -x p_0, so h = x^2 p_0 p_1."""
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False)), nn.Linear(1, 2, False), (1, 1, 1))
    with torch.no_grad():
        backbone.body[1].weight.fill_(0.5 * math.log(3))  # p = (3/4, 1/4)
        backbone.classifier.weight.copy_(torch.tensor([[1.0], [0.0]]))
    given = Context(rng.generator(0), torch.full((1, 1, 1, 1), 2.0))
    assert float(obd.fisher_diagonal(backbone, obd.Config(), given)["body.1"]) == pytest.approx(4 * 3 / 16)
    saliency = 4 * 3 / 16 * (0.5 * math.log(3)) ** 2 / 2
    assert float(obd.scores(backbone, obd.Config(), given)["body.1"]) == pytest.approx(saliency)


def test_the_mask_depends_on_no_draw() -> None:
    masks = [_masks.kept(_methods.prune(obd, convolutional(), 1.7, obd.Config(), context(30, seed))) for seed in (0, 1)]
    assert all(torch.equal(mask, masks[1][name]) for name, mask in masks[0].items())


def test_the_weights_of_smallest_saliency_go() -> None:
    backbone = convolutional()
    pruned = _methods.prune(obd, backbone, 1.7, obd.Config(), context(30))
    curvature = obd.fisher_diagonal(backbone, obd.Config(), context(30))
    saliency = {name: curvature[name] * layer.weight**2 / 2 for name, layer in _masks.prunable(backbone).items()}
    expected = _scores.prune_by_scores(backbone, 1.7, lambda: saliency, "global")
    assert all(torch.equal(mask, _masks.kept(expected)[name]) for name, mask in _masks.kept(pruned).items())
    layered = _methods.prune(obd, backbone, 1.7, obd.Config(scope="layer"), context(30))
    shares = [float(mask.double().mean()) for mask in _masks.kept(layered).values()]
    assert max(shares) - min(shares) < 0.08


def test_saliency_predicts_the_rise_of_the_loss_better_than_magnitude() -> None:
    """The expected loss under the network's own labels is flat at its weights: its rise is of second order."""
    backbone = convolutional().eval()
    given = images(200)
    with torch.no_grad():
        target = backbone(given).softmax(1)
    curvature = obd.fisher_diagonal(backbone, obd.Config(examples=200), context(200))
    rises, saliencies, magnitudes = [], [], []
    for name, layer in _masks.prunable(backbone).items():
        for index in range(0, layer.weight.numel(), 3):
            changed = copy.deepcopy(backbone)
            with torch.no_grad():
                _masks.prunable(changed)[name].weight.view(-1)[index] = 0
                rises.append(float((target * (target.log() - changed(given).log_softmax(1))).sum(1).mean()))
            weight = float(layer.weight.detach().view(-1)[index])
            saliencies.append(float(curvature[name].view(-1)[index]) * weight**2 / 2)
            magnitudes.append(abs(weight))
    ranks = [torch.tensor(values).argsort().argsort().double() for values in (rises, saliencies, magnitudes)]
    of_saliency, of_magnitude = (float(torch.corrcoef(torch.stack([ranks[0], other]))[0, 1]) for other in ranks[1:])
    assert of_saliency > max(0.9, of_magnitude)


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shared = nn.Linear(9, 9)

    def forward(self, given: Tensor) -> Tensor:
        return self.shared(self.shared(given.flatten(1)).relu())


class Turned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 5)

    def forward(self, given: Tensor) -> Tensor:
        return self.layer(given.flatten(0, 2)).unflatten(0, (-1, 3)).mean(1)


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        (Backbone(Twice(), nn.Linear(9, 3), SHAPE), "layer 'body.shared' to be called once .*, got another call"),
        (Backbone(Turned(), nn.Linear(5, 3), SHAPE), "layer 'body.layer' to be called once .*, got 18 inputs: .*snip"),
    ],
    ids=["twice", "not by example"],
)
def test_layers_whose_examples_cannot_be_told_apart_are_refused(backbone: Backbone, message: str) -> None:
    with pytest.raises(CompressionError, match=message):
        _methods.prune(obd, backbone, 1.5, obd.Config(), Context(rng.generator(0), images(6).float()))


def test_works_on_a_plain_perceptron() -> None:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config((6, 5)), SHAPE, CLASSES)
    pruned = _methods.prune(obd, backbone, 2.0, obd.Config(), Context(rng.generator(0), images(20).float()))
    assert _masks.removed(pruned) == _masks.weights_to_remove(backbone, 2.0)
