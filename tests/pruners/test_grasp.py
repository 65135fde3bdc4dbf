from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar, torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import _examples, _gradients, _masks, _methods, grasp
from sharedlabel.pruners._base import Context


def network() -> Backbone:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config((5, 4)), (1, 3, 3), 3).double()
        backbone.body[2] = backbone.body[4] = nn.Tanh()  # so that the curvature is more than that of the loss
    return backbone


def context(network: Backbone, count: int = 10) -> Context:
    images = torch.rand(count, *network.image_shape, dtype=torch.float64, generator=rng.generator(0, "images"))
    return Context(rng.generator(0), images, torch.arange(count) % 3)


def loss_of(backbone: Backbone, given: Context, temperature: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """Return all weights of layers in one vector, the classifier's last, and the loss as its function."""
    names = [f"{name}.weight" for name in (*_masks.prunable(backbone), "classifier")]
    shapes = [backbone.get_parameter(name).shape for name in names]
    flat = torch.cat([backbone.get_parameter(name).detach().flatten() for name in names])

    def loss(weights: Tensor) -> Tensor:
        parts = torch.split(weights, [shape.numel() for shape in shapes])
        values = {name: part.view(shape) for name, part, shape in zip(names, parts, shapes, strict=True)}
        logits = torch.func.functional_call(backbone, values, (given.images,)) / temperature
        return nn.functional.cross_entropy(logits, given.labels)

    return flat, loss


def gradient_and_hessian(backbone: Backbone, given: Context, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    weights, loss = loss_of(backbone, given, temperature)
    hessian = torch.autograd.functional.hessian(loss, weights)
    return weights, torch.func.grad(loss)(weights).detach(), hessian


@pytest.mark.parametrize("batch", [128, 3])
@pytest.mark.parametrize("temperature", [200.0, 1.0])
def test_scores_are_those_of_the_whole_hessian(monkeypatch: pytest.MonkeyPatch, batch: int, temperature: float) -> None:
    """Over one batch and over several: Hessian and gradient are those of all examples, not batch by batch."""
    monkeypatch.setattr(_examples, "_BATCH", batch)
    backbone = network()
    scores = grasp.scores(backbone, grasp.Config(temperature=temperature), context(backbone))
    weights, gradient, hessian = gradient_and_hessian(backbone, context(backbone), temperature)
    flat = torch.cat([scores[name].flatten() for name in _masks.prunable(backbone)])
    expected = (weights * (hessian @ gradient))[: len(flat)]
    torch.testing.assert_close(flat, expected, rtol=1e-8, atol=1e-14)


def squared_gradient(backbone: Backbone, given: Context) -> float:
    weights, loss = loss_of(backbone, given, 1.0)
    return float(torch.func.grad(loss)(weights).detach().square().sum())


def test_what_is_kept_carries_the_gradient() -> None:
    """To first order, scaling a weight by 1 - e changes the squared norm of the gradient by -2 e w (Hg)."""
    backbone, step = network(), 1e-6
    given = context(backbone)
    scores = grasp.scores(backbone, grasp.Config(temperature=1.0), given)
    before = squared_gradient(backbone, given)
    for name, layer in _masks.prunable(backbone).items():
        for index in (0, 7, 13):
            changed = copy.deepcopy(backbone)
            _masks.prunable(changed)[name].weight.data.view(-1)[index] *= 1 - step
            slope = (squared_gradient(changed, given) - before) / step
            assert slope == pytest.approx(-2 * float(scores[name].view(-1)[index]), rel=1e-3, abs=1e-8)
        assert layer.weight.grad is None


def test_the_largest_of_the_authors_scores_go() -> None:
    backbone = network()
    pruned = _methods.prune(grasp, backbone, 2.0, grasp.Config(), context(backbone))
    weights, gradient, hessian = gradient_and_hessian(backbone, context(backbone), 200.0)
    authors = (-weights * (hessian @ gradient))[: _masks.count(backbone)[0]]
    number = _masks.weights_to_remove(backbone, 2.0)
    gone = torch.cat([~mask.flatten() for mask in _masks.kept(pruned).values()])
    assert set(gone.nonzero().flatten().tolist()) == set(authors.topk(number).indices.tolist())


def test_scores_of_a_network_with_batch_normalisation() -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(8, 2), (3, 8, 8), 3).double()
    scores = grasp.scores(backbone, grasp.Config(temperature=2.0), context(backbone))
    reference = copy.deepcopy(backbone).train()
    weights = [layer.weight for layer in (*_masks.prunable(reference).values(), reference.classifier)]
    given = context(backbone)

    def gradient() -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(reference(given.images) / 2, given.labels)
        return torch.autograd.grad(loss, weights, create_graph=True)

    fixed = [part.detach() for part in gradient()]
    product = torch.autograd.grad(gradient(), weights, fixed)
    for score, weight, part in zip(scores.values(), weights, product, strict=False):
        torch.testing.assert_close(score, (weight * part).detach())


def test_scores_computed_by_hand() -> None:
    """One image x = 1 of the first of two classes, logits (w, -w): loss = log(1 + exp(-2 w)), s = sigmoid(-2 w).

    By the weights v = (1, -1) of the classifier and w of the body, with logits v w: g_w = -2 s and g_v = (-s w, s w).
    The derivative of g'g / 2 by w is g_w dg_w/dw + g_v dg_v/dw = (Hg)_w.
    """
    backbone = Backbone(nn.Sequential(nn.Flatten(), nn.Linear(1, 1, bias=False)), nn.Linear(1, 2, False), (1, 1, 1))
    backbone.double()
    w = 0.3
    with torch.no_grad():
        backbone.body[1].weight.fill_(w)
        backbone.classifier.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    given = Context(rng.generator(0), torch.ones(1, 1, 1, 1), torch.tensor([0]))
    scores = grasp.scores(backbone, grasp.Config(temperature=1.0, statistics="running"), given)
    s = 1 / (1 + math.exp(2 * w))
    slope = -2 * s * (1 - s)  # of s by w
    expected = w * (-2 * s * (-2 * slope) + 2 * (s * w) * (slope * w + s))
    assert float(scores["body.1"]) == pytest.approx(expected, rel=1e-12)


def test_examples_are_the_first_of_each_class() -> None:
    """Two of each class, whatever their order; a class that has one gives one."""
    backbone = network()
    images = context(backbone, 7).examples(7)
    given = Context(rng.generator(0), images, torch.tensor([0, 0, 0, 1, 0, 2, 1]))
    scores = grasp.scores(backbone, grasp.Config(samples_per_class=2), given)
    chosen = torch.tensor([0, 1, 3, 5, 6])
    same = Context(rng.generator(0), images[chosen], torch.tensor([0, 0, 1, 2, 1]))
    for name, score in grasp.scores(backbone, grasp.Config(), same).items():
        torch.testing.assert_close(scores[name], score, rtol=0, atol=0)


class Squeeze(nn.Module):
    """A gate as in MobileNetV3, by a layer, by a function, or by one that works in place."""

    def __init__(self, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second, self.gate = nn.Linear(9, 6), nn.Linear(6, 6), gate

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images.flatten(1)).tanh()
        return features * self.gate(8 * self.second(features))


def written_out(inputs: Tensor) -> Tensor:
    inside = (inputs > -3) & (inputs < 3)
    return torch.where(inside, inputs / 6 + 0.5, (inputs >= 3).to(inputs))


@pytest.mark.parametrize(
    "gate",
    [
        nn.Hardsigmoid(),
        nn.Hardsigmoid(inplace=True),
        nn.functional.hardsigmoid,
        lambda inputs: nn.functional.hardsigmoid(inputs, inplace=True),
    ],
    ids=["layer", "layer in place", "function", "function in place"],
)
def test_hardsigmoid_is_differentiated_twice(gate: Callable[[Tensor], Tensor]) -> None:
    """Its second derivative is 0 where it has one, though torch has none."""

    def scores(made: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        with rng.seeded(0):
            backbone = Backbone(Squeeze(made), nn.Linear(6, 3), (1, 3, 3)).double()
        gated = 8 * backbone.body.second(backbone.body.first(context(backbone).examples(10).flatten(1)).tanh())
        assert (gated.abs() > 3).any()
        assert (gated.abs() < 3).any()
        return dict(grasp.scores(backbone, grasp.Config(temperature=1.0), context(backbone)))

    for score, expected in zip(scores(gate).values(), scores(written_out).values(), strict=True):
        torch.testing.assert_close(score, expected, rtol=1e-9, atol=1e-15)


def test_values_and_slopes_of_the_composed_hardsigmoid_are_those_of_torch() -> None:
    points = torch.tensor([-4.0, -3.0, -2.9, 0.0, 2.9, 3.0, 4.0], requires_grad=True)
    results = [_gradients._hardsigmoid(points), nn.functional.hardsigmoid(points)]
    torch.testing.assert_close(*results)
    slopes = [torch.autograd.grad(result.sum(), points)[0] for result in results]
    torch.testing.assert_close(*slopes, rtol=0, atol=1e-7)
    assert slopes[0].tolist() == pytest.approx([0, 0, 1 / 6, 1 / 6, 1 / 6, 0, 0])


def test_mobilenet_v3_is_pruned() -> None:
    backbone = torchvision_model.build(torchvision_model.Config("mobilenet_v3_small"), (3, 32, 32), 3)
    given = context(backbone.float(), 6)
    given = Context(given.generator, given.examples(6).float(), given.labelled(6)[1])
    pruned = _methods.prune(grasp, backbone, 2.0, grasp.Config(), given)
    assert _masks.removed(pruned) == _masks.weights_to_remove(backbone, 2.0)


def test_pruned_before_training() -> None:
    assert grasp.SCHEDULE.when == "initial"
