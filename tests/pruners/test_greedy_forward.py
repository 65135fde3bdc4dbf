from __future__ import annotations

import copy
import dataclasses
import math
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.pruners import _channels, _methods, greedy_forward
from sharedlabel.pruners._base import Context
from sharedlabel.pruners._growth import Growth, traced

SHAPE, CLASSES = (2, 4, 4), 3
ALL = greedy_forward.Config(shortlist=1000, candidates=1000)


def images(count: int = 20, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=rng.generator(0, "images"))


def labels(count: int = 20) -> Tensor:
    return torch.arange(count) % CLASSES


def context(seed: int = 0, count: int = 20, shape: tuple[int, int, int] = SHAPE) -> Context:
    return Context(rng.generator(seed), images(count, shape), labels(count))


def multilayer(*widths: int, bias: bool = True) -> Backbone:
    with rng.seeded(0):
        backbone = mlp.build(mlp.Config(widths, bias), SHAPE, CLASSES)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter, 0, 0.5)
    return backbone


def residual(shortcut: Literal["pad", "projection"] = "pad") -> Backbone:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(8, 4, shortcut), (3, 8, 8), CLASSES).eval()
        for module in backbone.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, 1, 0.2)
                nn.init.normal_(module.bias, 0, 0.2)
    return backbone


def by_hand(weights: list[Tensor], biases: list[Tensor], sizes: list[int], scale: bool) -> list[list[int]]:
    """Grow the layers of a multilayer perceptron, trying every channel with a pass through the whole network."""
    factors = [torch.ones(len(weight)) for weight in weights[:-1]]

    def loss() -> float:
        hidden = images().flatten(1)
        for weight, bias, factor in zip(weights[:-1], biases[:-1], factors, strict=True):
            hidden = F.linear(hidden, weight, bias).relu() * factor
        return float(F.cross_entropy(F.linear(hidden, weights[-1], biases[-1]), labels()))

    chosen: list[list[int]] = [[] for _ in sizes]
    for layer, size in enumerate(sizes):
        n, a = len(weights[layer]), torch.zeros(len(weights[layer]))
        for k in range(size):
            losses = {}
            for i in set(range(n)) - set(chosen[layer]):
                factors[layer] = n * (a + (torch.eye(n)[i] - a) / (k + 1))
                losses[i] = loss()
            chosen[layer].append(min(losses, key=lambda i: losses[i]))
            a = a + (torch.eye(n)[chosen[layer][-1]] - a) / (k + 1)
        factors[layer] = n * a if scale else (a > 0).float()
    return [sorted(layer) for layer in chosen]


@pytest.mark.parametrize("widths", [(9,), (8, 7)])
@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("ratio", [1.6, 3.0])
def test_same_channels_as_by_trying_all_of_them(widths: tuple[int, ...], scale: bool, ratio: float) -> None:
    backbone = multilayer(*widths)
    pruned = _methods.prune(greedy_forward, backbone, ratio, dataclasses.replace(ALL, scale=scale), context())
    layers = [module for module in backbone.modules() if isinstance(module, nn.Linear)]
    small = [module for module in pruned.modules() if isinstance(module, nn.Linear)]
    weights, biases = [layer.weight.detach() for layer in layers], [layer.bias.detach() for layer in layers]
    chosen = by_hand(weights, biases, [layer.out_features for layer in small[:-1]], scale)
    columns, factor = list(range(32)), 1.0
    for dense, layer, rows in zip(layers, small, [*chosen, list(range(CLASSES))], strict=True):
        torch.testing.assert_close(layer.weight, dense.weight[rows][:, columns] * factor)
        torch.testing.assert_close(layer.bias, dense.bias[rows])
        columns, factor = rows, len(dense.weight) / len(rows) if scale else 1.0


def group_of(backbone: Backbone, name: str) -> tuple[Growth, _channels.Group]:
    network = copy.deepcopy(backbone).requires_grad_(False).eval()
    group = _channels.groups(backbone)[name]
    given = network.normalize(images(6, backbone.image_shape))
    return Growth(traced(network), group, given, labels(6)), group


def scaled_loss(backbone: Backbone, group: _channels.Group, scale: Tensor) -> Tensor:
    """Run the whole network with scaled inputs of the layers that read a group."""
    network = copy.deepcopy(backbone).eval()

    def watch(name: str, factors: Tensor) -> None:
        def multiply(layer: nn.Module, given: tuple[Tensor, ...]) -> Tensor:
            after = 0 if isinstance(layer, nn.Linear) else given[0].ndim - 2
            return given[0] * factors.view(-1, *[1] * after)

        network.get_submodule(name).register_forward_pre_hook(multiply)

    for slot in group.readers:
        inputs = torch.ones(network.get_submodule(slot.layer).get_parameter("weight").shape[1], dtype=scale.dtype)
        watch(slot.layer, inputs.index_put((slot.index,), scale[:, None].expand(slot.index.shape)))
    for name in group.entering:
        watch(name, (scale > 0).to(scale.dtype))
    return F.cross_entropy(network(images(6, backbone.image_shape)), labels(6))


def flattened() -> Backbone:
    """A convolution with a bias whose map is flattened, and channels of two layers side by side."""
    with rng.seeded(0):
        layers = (
            nn.Conv2d(2, 4, 3, 2, 1),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(16, 5),
            nn.ReLU(inplace=True),
        )
        return Backbone(nn.Sequential(*layers), nn.Linear(5, CLASSES), SHAPE)


class Side(nn.Module):
    """Two layers side by side, read together and one of them alone, and added in place."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 3, 1)
        self.after, self.again = nn.Conv2d(7, 5, 3), nn.Conv2d(4, 5, 3)

    def forward(self, given: Tensor) -> Tensor:
        left = self.left(given).relu()
        out = self.after(torch.cat([left, self.right(given).relu()], 1))
        out += self.again(left)
        return out.relu().mean((2, 3))


def side() -> Backbone:
    with rng.seeded(0):
        return Backbone(Side(), nn.Linear(5, CLASSES), SHAPE)


class Tokens(nn.Module):
    """A perceptron on every pixel, whose channels are the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(2), nn.Linear(2, 7), nn.Linear(7, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(self.norm(images.movedim(1, -1))))).mean((1, 2)).relu()


def tokens() -> Backbone:
    with rng.seeded(0):
        return Backbone(Tokens(), nn.Linear(5, CLASSES), SHAPE)


CASES = [
    *((tokens, name) for name in ("body.up", "body.down")),
    *((residual, name) for name in ("body.0", "body.3.residual.0", "body.4.residual.3", "body.5.residual.3")),
    *((lambda: residual("projection"), name) for name in ("body.0", "body.4.residual.0", "body.5.residual.3")),
    *((flattened, name) for name in ("body.0", "body.3")),
    *((side, name) for name in ("body.left", "body.right", "body.after")),
]


@pytest.mark.parametrize(("build", "name"), CASES)
def test_losses_and_slopes_are_those_of_the_whole_network(build: object, name: str) -> None:
    assert callable(build)
    backbone = build()
    growth, group = group_of(backbone, name)
    n, chosen = group.size, []
    for channel in (1, 0, 2):
        share = torch.bincount(torch.tensor(chosen, dtype=torch.int64), minlength=n) / max(len(chosen), 1)
        leaf = (n * share).requires_grad_()
        (slopes,) = torch.autograd.grad(scaled_loss(backbone, group, leaf), leaf)
        torch.testing.assert_close(growth.slopes(), n * slopes, rtol=1e-4, atol=1e-5)
        candidates = torch.tensor([i for i in range(n) if i not in chosen])
        after = [torch.bincount(torch.tensor([*chosen, i]), minlength=n) * n / (len(chosen) + 1) for i in candidates]
        expected = torch.stack([scaled_loss(backbone, group, scale) for scale in after])
        torch.testing.assert_close(growth.losses(candidates), expected.detach(), rtol=1e-4, atol=1e-5)
        growth.add(channel)
        chosen.append(channel)


@pytest.mark.parametrize("build", [residual, flattened, side])
def test_the_uniform_share_is_the_dense_network(build: object) -> None:
    assert callable(build)
    backbone = build()
    name = next(iter(_channels.groups(backbone)))
    growth, group = group_of(backbone, name)
    for channel in range(group.size - 1):
        growth.add(channel)
    loss = F.cross_entropy(backbone.eval()(images(6, backbone.image_shape)), labels(6)).detach()
    torch.testing.assert_close(growth.losses(torch.tensor([group.size - 1]))[0], loss)


def loss_of(backbone: Backbone, count: int = 20) -> float:
    with torch.no_grad():
        return float(F.cross_entropy(backbone.eval()(images(count, backbone.image_shape)), labels(count)))


@pytest.mark.parametrize("shortlist", [1, 4, 99])
def test_loss_is_lower_than_with_random_channels(shortlist: int) -> None:
    backbone = multilayer(30, bias=False)
    config = greedy_forward.Config(20, 99, shortlist)
    chosen = [loss_of(_methods.prune(greedy_forward, backbone, 3.0, config, context(seed))) for seed in range(3)]
    # With one candidate in every step, channels are drawn at random.
    config = greedy_forward.Config(20, 1)
    drawn = [loss_of(_methods.prune(greedy_forward, backbone, 3.0, config, context(seed))) for seed in range(21)]
    assert max(chosen) < sorted(drawn)[10 if shortlist == 1 else 0]


def test_the_shortlist_holds_the_steepest() -> None:
    """A list of one leaves nothing to compare: after the first step the slopes alone choose."""
    growth, group = group_of(multilayer(9), "body.1")
    chosen = greedy_forward._grow(growth, 4, greedy_forward.Config(shortlist=1), rng.generator(0))
    other, _ = group_of(multilayer(9), "body.1")
    expected = [int(other.losses(torch.arange(group.size)).argmin())]
    for _ in range(3):
        other.add(expected[-1])
        slopes = other.slopes()
        slopes[expected] = math.inf
        expected.append(int(slopes.argmin()))
    assert chosen.nonzero()[:, 0].tolist() == sorted(expected)


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize("scale", [True, False])
def test_layers_are_grown_behind_those_pruned_before(
    shortcut: Literal["pad", "projection"], scale: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Growing the last group ends with the loss of the network that is returned."""
    losses: list[Tensor] = []
    grow = greedy_forward._grow

    def spy(growth: Growth, *rest: Any) -> Tensor:
        chosen = grow(growth, *rest)
        with torch.no_grad():
            losses.append(growth._loss(growth.share if scale else chosen / len(chosen), {}))
        return chosen

    monkeypatch.setattr(greedy_forward, "_grow", spy)
    config = greedy_forward.Config(candidates=5, scale=scale)
    pruned = _methods.prune(greedy_forward, residual(shortcut), 3.0, config, context(0, 20, (3, 8, 8)))
    with torch.no_grad():
        loss = F.cross_entropy(pruned.eval()(images(20, (3, 8, 8))), labels())
    torch.testing.assert_close(losses[-1], loss, rtol=1e-4, atol=1e-5)


def test_scale_is_that_of_the_share_and_can_be_left_out() -> None:
    backbone = multilayer(8)
    with_scale = _methods.prune(greedy_forward, backbone, 2.0, greedy_forward.Config(), context())
    without = _methods.prune(greedy_forward, backbone, 2.0, greedy_forward.Config(scale=False), context())
    size = without.body[1].out_features
    assert torch.equal(with_scale.body[1].weight, without.body[1].weight)
    torch.testing.assert_close(with_scale.classifier.weight, without.classifier.weight * 8 / size)
    assert torch.equal(with_scale.classifier.bias, backbone.classifier.bias)


def test_every_layer_keeps_the_same_share() -> None:
    pruned = _methods.prune(greedy_forward, multilayer(24, 12), 2.5, greedy_forward.Config(), context())
    first, second = pruned.body[1].out_features, pruned.body[3].out_features
    assert abs(first / 24 - second / 12) <= 0.5 / 24 + 0.5 / 12


def test_candidates_are_drawn_from_the_generator() -> None:
    backbone, config = multilayer(30), greedy_forward.Config(candidates=2)
    kept = [_methods.prune(greedy_forward, backbone, 3.0, config, context(seed)).body[1].weight for seed in (0, 0, 1)]
    assert torch.equal(kept[0], kept[1])
    assert not torch.equal(kept[0], kept[2])


class Depends(nn.Module):
    """Chooses its way by the values that it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(32, 4), nn.Linear(32, 4)

    def forward(self, given: Tensor) -> Tensor:
        flat = given.flatten(1)
        return (
            self.one(flat) if float(flat.detach().new_zeros(()).cpu()) or flat.sum() > 0 else self.other(flat)
        ).relu()


def test_a_network_that_depends_on_values_is_refused() -> None:
    backbone = Backbone(Depends(), nn.Linear(4, CLASSES), SHAPE)
    with pytest.raises(CompressionError, match="expected a network that runs the same layers for all images, got:"):
        traced(backbone)


def test_missing_labels_and_losses_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CompressionError, match="expected labels of the images, got none"):
        _methods.prune(greedy_forward, multilayer(8), 2.0, ALL, Context(rng.generator(0), images()))
    with pytest.raises(CompressionError, match="expected images to compute scores from, got none"):
        _methods.prune(greedy_forward, multilayer(8), 2.0, ALL, Context(rng.generator(0)))
    backbone = multilayer(8)
    with torch.no_grad():
        backbone.classifier.bias[0] = torch.nan
    with pytest.raises(CompressionError, match="got 8 NaN or infinite of 8 in layer 'body"):
        _methods.prune(greedy_forward, backbone, 2.0, ALL, context())


class Encoder(nn.Module):
    """Tokens of a pixel each, and an encoder of torch that is run as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.TransformerEncoderLayer(SHAPE[0], 1, 8, dropout=0.0, batch_first=True)

    def forward(self, images: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(images.flatten(2).transpose(1, 2))
        return encoded.mean(1)


def test_layers_inside_a_module_that_is_run_as_a_whole_are_refused():
    network = Backbone(Encoder(), nn.Linear(SHAPE[0], CLASSES), SHAPE)
    expected = r"^expected layers that .*, got 'body\.encoder\.linear2' inside a module of torch .*; choose .*filter_l1"
    with pytest.raises(CompressionError, match=expected):
        _methods.prune(greedy_forward, network, 1.2, greedy_forward.Config(), context())
