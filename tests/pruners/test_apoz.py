from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar, torchvision_model
from sharedlabel.backbones._base import Backbone
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _examples, _methods, apoz
from sharedlabel.pruners._base import Context

SHAPE = (2, 4, 4)


def images(count: int = 10, shape: tuple[int, int, int] = SHAPE) -> Tensor:
    return torch.rand(count, *shape, generator=rng.generator(0, "images"))


def plain() -> Backbone:
    """Pooling and flattening between ReLUs and the layers that read after them."""
    with rng.seeded(0):
        body = nn.Sequential(
            *(nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(5, 3, 1), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(12, 6), nn.ReLU()),
        )
        backbone = Backbone(body, nn.Linear(6, 3), SHAPE)
        for parameter in backbone.parameters():
            nn.init.normal_(parameter)
    return backbone


def multilayer() -> Backbone:
    with rng.seeded(0):
        return mlp.build(mlp.Config((12, 8)), SHAPE, 3)


def prune(backbone: Backbone, ratio: float, config: apoz.Config, count: int = 10) -> Backbone:
    return _methods.prune(apoz, backbone, ratio, config, Context(rng.generator(0), images(count, backbone.image_shape)))


def counted(maps: Tensor) -> Tensor:
    """Count the zeros of every channel, one number after the other."""
    zeros = torch.zeros(maps.shape[1], dtype=torch.float64)
    for example, channel in itertools.product(maps, range(maps.shape[1])):
        values = example[channel].flatten().tolist()
        zeros[channel] += sum(value == 0 for value in values) / len(values) / len(maps)
    return zeros


class Tokens(nn.Module):
    """Attention over pixels, then a perceptron on each, whose units are the last dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(2, 1, batch_first=True)
        self.up, self.down = nn.Linear(2, 9), nn.Linear(9, 5)

    def forward(self, given: Tensor) -> Tensor:
        steps = given.flatten(2).transpose(1, 2)
        steps = steps + self.attention(steps, steps, steps)[0]
        return self.down(self.up(steps).relu()).relu().mean(1)


def test_units_on_tokens_are_counted_over_tokens() -> None:
    with rng.seeded(0):
        backbone = Backbone(Tokens(), nn.Linear(5, 3), SHAPE).eval()
    seen: dict[str, Tensor] = {}
    for name in ("up", "down"):
        backbone.body.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: seen.update({f"body.{name}": output.relu()})
        )
    backbone(images())
    shares = apoz.zero_shares(backbone, images())
    assert list(shares) == ["body.up", "body.down"]
    for name, share in shares.items():
        torch.testing.assert_close(share, (seen[name] == 0).double().mean((0, 1)))
    assert counts.parameters(prune(backbone, 1.5, apoz.Config())) < counts.parameters(backbone)


@pytest.mark.parametrize("batch", [128, 3])
def test_shares_of_zeros_are_those_of_explicit_loops(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(_examples, "_BATCH", batch)
    backbone = plain().train()
    shares = apoz.zero_shares(backbone, images())
    assert backbone.training
    backbone.eval()
    maps = backbone.normalize(images())
    expected = {}
    for name, layer in backbone.body.named_children():
        maps = layer(maps)
        if isinstance(layer, nn.ReLU):
            expected[name] = counted(maps)
    assert list(shares) == ["body.0", "body.4", "body.8"]
    for one, other in zip(shares.values(), expected.values(), strict=True):
        torch.testing.assert_close(one, other)
        assert 0 < one.max() < 1 or 0 < one.min() < 1


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_a_residual_stream_counts_after_each_of_its_relus(shortcut: str) -> None:
    with rng.seeded(0):
        backbone = resnet_cifar.build(resnet_cifar.Config(14, 4, shortcut), (3, 8, 8), 3).eval()  # type: ignore[arg-type]
    outputs: dict[str, Tensor] = {}
    for name in ("2", "3", "4", "7", "8"):
        layer = backbone.body.get_submodule(name)
        layer.register_forward_hook(lambda _, __, output, name=name: outputs.update({name: output}))
    shares = apoz.zero_shares(backbone, images(6, (3, 8, 8)))
    backbone(images(6, (3, 8, 8)))
    # The first stage is read after the stem and after each of its blocks, the last one by its second block and the
    # classifier, which reads after pooling.
    torch.testing.assert_close(
        shares["body.0"], (counted(outputs["2"]) + counted(outputs["3"]) + counted(outputs["4"])) / 3
    )
    torch.testing.assert_close(shares["body.7.residual.3"], (counted(outputs["7"]) + counted(outputs["8"])) / 2)


class Functional(nn.Module):
    """ReLUs that are no modules, one of them after a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.after = nn.Conv2d(2, 3, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(7, 5, 1)

    def forward(self, given: Tensor) -> Tensor:
        both = torch.cat([self.left(given), self.right(given)], 1).relu()
        return nn.functional.adaptive_avg_pool2d(self.after(both).relu(), 1).flatten(1)


def test_relus_need_not_be_modules() -> None:
    with rng.seeded(0):
        backbone = Backbone(Functional(), nn.Linear(5, 3), SHAPE)
    shares = apoz.zero_shares(backbone, images())
    given = backbone.normalize(images())
    torch.testing.assert_close(shares["body.left"], counted(backbone.body.left(given).relu()))
    torch.testing.assert_close(shares["body.right"], counted(backbone.body.right(given).relu()))


def test_the_channels_with_most_zeros_go_and_of_equal_ones_the_last() -> None:
    backbone = multilayer()
    first, second = backbone.body[1], backbone.body[3]
    with torch.no_grad():
        first.bias.copy_(torch.tensor([5.0, -50.0] * 6))  # never and always zero
        second.weight.abs_()
        second.bias.fill_(1.0)
    pruned = prune(backbone, 1.7, apoz.Config())
    kept = pruned.body[1].weight
    assert len(kept) == 8
    assert torch.equal(kept, first.weight[[0, 1, 2, 3, 4, 6, 8, 10]])
    assert torch.equal(pruned.body[3].weight[:, 0], second.weight[: len(pruned.body[3].weight), 0])


def test_global_scope_compares_layers() -> None:
    backbone = multilayer()
    with torch.no_grad():
        backbone.body[1].bias.fill_(10.0)
    shares = apoz.zero_shares(backbone, images())
    assert shares["body.1"].max() < shares["body.3"].max()
    pruned = prune(backbone, 1.05, apoz.Config(scope="global"))
    assert pruned.body[1].out_features == 12
    assert pruned.body[3].out_features < 8


def test_only_so_many_examples_count() -> None:
    backbone = plain()
    one = prune(backbone, 2.0, apoz.Config(examples=4), count=10).state_dict()
    other = prune(backbone, 2.0, apoz.Config(), count=4).state_dict()
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_torchvision_network() -> None:
    with rng.seeded(0):
        backbone = torchvision_model.build(torchvision_model.Config("resnet18"), (3, 16, 16), 3)
    pruned = prune(backbone, 8.0, apoz.Config(), count=2)
    assert counts.parameters(backbone) / counts.parameters(pruned) == pytest.approx(8.0, rel=1e-3)


def frozen() -> Backbone:
    return multilayer().requires_grad_(False)


def test_a_network_that_needs_no_gradient_is_pruned_and_stays_so() -> None:
    backbone = frozen()
    pruned = prune(backbone, 2.0, apoz.Config())
    assert not any(parameter.requires_grad for parameter in (*pruned.parameters(), *backbone.parameters()))


class Sum(nn.Module):
    """Channels that are added after their ReLUs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(32, 4), nn.Linear(32, 4)

    def forward(self, given: Tensor) -> Tensor:
        return self.left(given.flatten(1)).relu() + self.right(given.flatten(1)).relu()


def without_relu() -> Backbone:
    return Backbone(nn.Sequential(nn.Flatten(), nn.Linear(32, 5), nn.Linear(5, 4), nn.ReLU()), nn.Linear(4, 3), SHAPE)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (without_relu, "expected all that 'body.2' reads to come from one ReLU, got other sources.*filter_l1"),
        (lambda: Backbone(Sum(), nn.Linear(4, 3), SHAPE), "'classifier' reads to come from one ReLU, got several"),
    ],
)
def test_channels_that_pass_no_relu_are_refused_before_there_is_data(
    build: Callable[[], Backbone], message: str
) -> None:
    with pytest.raises(CompressionError, match=message):
        _methods.ceiling(apoz, build(), apoz.Config())


def test_missing_images_and_weights_that_are_not_finite_are_refused() -> None:
    with pytest.raises(CompressionError, match="expected images to compute scores from, got none"):
        _methods.prune(apoz, plain(), 2.0, apoz.Config(), Context(rng.generator(0)))
    with pytest.raises(CompressionError, match="got an empty set"):
        prune(plain(), 2.0, apoz.Config(), count=0)
    backbone = plain()
    with torch.no_grad():
        backbone.body[4].weight[0] = torch.nan
    with pytest.raises(
        CompressionError, match=r"expected finite weights, got .* NaN or infinite of .* in layer 'body.4'"
    ):
        prune(backbone, 2.0, apoz.Config())
    backbone = plain()
    with torch.no_grad():
        backbone.classifier.bias[0] = torch.nan
    with pytest.raises(CompressionError, match=r"expected finite logits, got .* of .* on finite images"):
        prune(backbone, 2.0, apoz.Config())
