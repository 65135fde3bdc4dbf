from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.pruners import _gradients, _masks, grasp
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
    """Return all prunable weights in one vector, and the loss as its function."""
    names = [f"{name}.weight" for name in _masks.prunable(backbone)]
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
    monkeypatch.setattr(_gradients, "_BATCH", batch)
    backbone = network()
    scores = grasp.gradient_flow(backbone, grasp.Config(temperature=temperature), context(backbone))
    weights, gradient, hessian = gradient_and_hessian(backbone, context(backbone), temperature)
    found = torch.cat([scores[name].flatten() for name in _masks.prunable(backbone)])
    torch.testing.assert_close(found, weights * (hessian @ gradient), rtol=1e-8, atol=1e-14)


def squared_gradient(backbone: Backbone, given: Context) -> float:
    weights, loss = loss_of(backbone, given, 1.0)
    return float(torch.func.grad(loss)(weights).detach().square().sum())


def test_what_is_kept_carries_the_gradient() -> None:
    """To first order, scaling a weight by 1 - e changes the squared norm of the gradient by -2 e w (Hg)."""
    backbone, step = network(), 1e-6
    given = context(backbone)
    scores = grasp.gradient_flow(backbone, grasp.Config(temperature=1.0), given)
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
    pruned = grasp.prune(backbone, 2.0, grasp.Config(), context(backbone))
    weights, gradient, hessian = gradient_and_hessian(backbone, context(backbone), 200.0)
    authors = -weights * (hessian @ gradient)
    number = _masks.weights_to_remove(backbone, 2.0)
    gone = torch.cat([~mask.flatten() for mask in _masks.kept(pruned).values()])
    assert set(gone.nonzero().flatten().tolist()) == set(authors.topk(number).indices.tolist())


def test_scores_of_a_network_with_batch_normalisation() -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(8, 2), (3, 8, 8), 3).double()
    scores = grasp.gradient_flow(backbone, grasp.Config(temperature=2.0), context(backbone))
    reference = copy.deepcopy(backbone).train()
    weights = [layer.weight for layer in _masks.prunable(reference).values()]
    given = context(backbone)

    def gradient() -> tuple[Tensor, ...]:
        loss = nn.functional.cross_entropy(reference(given.images) / 2, given.labels)
        return torch.autograd.grad(loss, weights, create_graph=True)

    fixed = [part.detach() for part in gradient()]
    product = torch.autograd.grad(gradient(), weights, fixed)
    for score, weight, part in zip(scores.values(), weights, product, strict=True):
        torch.testing.assert_close(score, (weight * part).detach())


def test_pruned_before_training() -> None:
    assert grasp.SCHEDULE.when == "initial"
