from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.models.convnext import CNBlock
from torchvision.models.swin_transformer import SwinTransformerBlock
from torchvision.models.vision_transformer import EncoderBlock

from sharedlabel import rng
from sharedlabel.backbones import mlp, resnet_cifar, torchvision_model
from sharedlabel.backbones._base import Backbone, initialize
from sharedlabel.backbones._butterfly import ButterflyLinear
from sharedlabel.backbones._restore import restore, state
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.config import resolve
from sharedlabel.errors import CompressionError
from sharedlabel.measurements import counts
from sharedlabel.pruners import _channels, _groups, _methods, butterfly, magnitude
from sharedlabel.pruners._base import Context

CLASSES = 3
SMALL, LARGE = (3, 8, 8), (3, 32, 32)
# Backbone plugins by the name of the case: all that the suite can build and store.
PLUGINS = {
    "mlp": ({"name": "mlp", "widths": [12, 7]}, SMALL),
    "resnet8-pad": ({"name": "resnet_cifar", "depth": 8, "width": 6}, SMALL),
    "resnet8-projection": ({"name": "resnet_cifar", "depth": 8, "width": 6, "shortcut": "projection"}, SMALL),
    "resnet20-pad": ({"name": "resnet_cifar", "depth": 20, "width": 5}, SMALL),
    "resnet20-projection": ({"name": "resnet_cifar", "depth": 20, "width": 4, "shortcut": "projection"}, SMALL),
    "mobilenet": ({"name": "torchvision_model", "architecture": "mobilenet_v3_small"}, LARGE),
    "resnet18": ({"name": "torchvision_model", "architecture": "resnet18"}, LARGE),
}


def from_plugin(name: str) -> Backbone:
    entry, shape = PLUGINS[name]
    plugin = resolve("backbones", entry)
    module = {"mlp": mlp, "resnet_cifar": resnet_cifar, "torchvision_model": torchvision_model}[plugin.name]
    return module.build(plugin.config, shape, CLASSES)


def torchvision(architecture: str) -> Callable[[], Backbone]:
    config = torchvision_model.Config(architecture=architecture)
    return lambda: torchvision_model.build(config, LARGE, CLASSES)


def sequential(*layers: nn.Module, width: int, shape: tuple[int, int, int] = SMALL) -> Backbone:
    return Backbone(nn.Sequential(*layers), nn.Linear(width, CLASSES), shape)


def vgg() -> Backbone:
    """VGG16 with batch normalisation and narrower linear layers: torchvision's have 120 million weights."""
    with torch.device("meta"):
        body = torchvision("vgg16_bn")().body
        body.set_submodule("classifier.0", nn.Linear(512 * 49, 40))
        body.set_submodule("classifier.3", nn.Linear(40, 30))
    backbone = Backbone(body.to_empty(device="cpu"), nn.Linear(30, CLASSES), LARGE)
    initialize(backbone)
    return backbone


def grouped() -> Backbone:
    """Channels that pass a convolution with two groups stay; the last layer's can go."""
    layers = (nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.BatchNorm2d(6), nn.ReLU())
    return sequential(*layers, nn.Conv2d(6, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), width=10)


def flattened() -> Backbone:
    """Normalisation of a flattened map: each channel has 16 entries."""
    layers = (nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Flatten(), nn.BatchNorm1d(80), nn.ReLU())
    return sequential(*layers, nn.Linear(80, 6, bias=False), nn.BatchNorm1d(6, affine=False), nn.ReLU(), width=6)


class Excited(nn.Module):
    """An inverted residual block of MobileNetV3: depthwise convolution, squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(3, 8, 1, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Hardswish())
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 4, 1), nn.ReLU(), nn.Conv2d(4, 8, 1))
        self.project = nn.Sequential(nn.Conv2d(8, 5, 1, bias=False), nn.BatchNorm2d(5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.depthwise(self.expand(images))
        return self.project(maps * nn.functional.hardsigmoid(self.squeeze(maps))).mean((2, 3))


class Concatenated(nn.Module):
    """Two branches side by side, of which one is also read alone."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 6, 1)
        self.after = nn.Conv2d(10, 5, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left = self.left(images).relu()
        both = torch.cat([left, self.right(images).relu()], 1)
        return self.after(both).relu().mean((2, 3)).relu()


class Transformer(nn.Module):
    """A vision transformer: patches, class token, positions, blocks of attention and perceptron."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.zeros(1, 1, 8)), nn.Parameter(torch.empty(1, 5, 8).normal_())
        self.blocks = nn.Sequential(*(EncoderBlock(2, 8, width, 0.0, 0.0) for width in (12, 10)))
        self.norm = nn.LayerNorm(8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        steps = self.patches(images).flatten(2).transpose(1, 2)
        steps = torch.cat([self.token.expand(len(images), -1, -1), steps], 1) + self.positions
        return self.norm(self.blocks(steps))[:, 0]


class Windows(nn.Module):
    """Two blocks of a Swin transformer, whose attention reads the weights of its layers without calling them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, stride=2)
        self.blocks = nn.Sequential(*(SwinTransformerBlock(8, 2, [2, 2], [shift] * 2) for shift in (0, 1)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.blocks(self.patches(images).permute(0, 2, 3, 1)).mean((1, 2))


def next_block() -> Backbone:
    """A block of ConvNeXt, whose branch is scaled by a parameter that belongs to no layer."""
    block = CNBlock(8, 0.5, 0.0)
    return sequential(nn.Conv2d(3, 8, 3), block, nn.AdaptiveAvgPool2d(1), nn.Flatten(), width=8)


BUILDERS: dict[str, Callable[[], Backbone]] = {
    **{name: lambda name=name: from_plugin(name) for name in PLUGINS},
    "resnet50": torchvision("resnet50"),
    "vgg": vgg,
    "grouped": grouped,
    "flattened": flattened,
    "excited": lambda: Backbone(Excited(), nn.Linear(5, CLASSES), SMALL),
    "concatenated": lambda: Backbone(Concatenated(), nn.Linear(5, CLASSES), SMALL),
    "transformer": lambda: Backbone(Transformer(), nn.Linear(8, CLASSES), SMALL),
    "windows": lambda: Backbone(Windows(), nn.Linear(8, CLASSES), SMALL),
    "next block": next_block,
}
QUICK = ("mlp", "resnet8-pad", "resnet8-projection", "grouped", "flattened", "excited", "concatenated", "transformer")


def build(name: str) -> Backbone:
    """Build a network in which no parameter or statistic has a special value, so that nothing is equal by chance."""
    with rng.seeded(0):
        backbone = BUILDERS[name]()
        for module in backbone.modules():
            for parameter in module.parameters(recurse=False):
                if parameter.ndim < 2:
                    nn.init.uniform_(parameter, 0.5, 1.5)
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2)
    return backbone.eval()


def some(channel_groups: dict[str, _channels.Group], share: float = 0.6, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = rng.generator(seed)
    keep = {name: torch.rand(group.size, generator=generator) < share for name, group in channel_groups.items()}
    for marks in keep.values():
        marks[int(torch.randint(len(marks), (1,), generator=generator))] = True
    return keep


def images(backbone: Backbone, count: int = 2) -> torch.Tensor:
    return torch.rand(count, *backbone.image_shape, generator=rng.generator(0, "images"))


def assert_same_outputs(one: Backbone, other: Backbone) -> None:
    with torch.inference_mode():
        left, right = (network(images(network)) for network in (one, other))
    torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-5 * float(right.abs().max()))


@pytest.mark.parametrize("name", BUILDERS)
def test_removed_channels_are_as_good_as_zero_ones(name: str) -> None:
    dense = build(name)
    keep = some(_channels.groups(dense))
    small, masked = _channels.keep_channels(dense, keep), _channels.mask_channels(dense, keep)
    assert_same_outputs(small, masked)
    assert counts.parameters(small) < counts.parameters(masked) == counts.parameters(dense)
    assert counts.macs(small, dense.image_shape).executed < counts.macs(dense, dense.image_shape).executed


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("seed", range(4))
def test_removing_again_is_removing_both(name: str, seed: int) -> None:
    """A network that lost channels can lose more, shortcuts included."""
    dense = build(name)
    once = some(_channels.groups(dense), 0.7, seed)
    small = _channels.keep_channels(dense, once)
    again = some(_channels.groups(small), 0.7, seed + 10)
    smaller = _channels.keep_channels(small, again)
    both = {key: marks.clone() for key, marks in once.items()}
    for key, marks in both.items():
        marks[marks.clone()] = again[key]
    assert_same_outputs(smaller, _channels.mask_channels(dense, both))
    assert_same_outputs(smaller, _channels.mask_channels(small, again))


@pytest.mark.parametrize("name", QUICK)
def test_counts_are_those_of_the_networks(name: str) -> None:
    dense = build(name)
    channel_groups = _channels.groups(dense)
    for seed in range(5):
        keep = some(channel_groups, 0.5, seed)
        left = torch.tensor([[int(keep[key].sum()) for key in channel_groups]])
        count = int(_channels.parameter_counts(dense, channel_groups, left))
        assert count == counts.parameters(_channels.keep_channels(dense, keep))


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("name", QUICK)
def test_parameter_count_is_the_closest_on_the_way(name: str, scope: Literal["global", "layer"]) -> None:
    """Half of the largest channel is the furthest that the closest count can be from the aim."""
    dense = build(name)
    scores = {key: torch.rand(g.size, generator=rng.generator(1, key)) for key, g in _channels.groups(dense).items()}
    total, ceiling = counts.parameters(dense), _channels.structured_ceiling(dense)
    for ratio in (1.0, 1.0 + 0.3 * (ceiling - 1), ceiling):
        count = counts.parameters(_channels.prune_channels_by_scores(dense, ratio, scores, scope))
        step = max_step(dense)
        assert abs(count - total / ratio) <= step / 2 + 1
    assert count == pytest.approx(total / ceiling)


def max_step(dense: Backbone) -> int:
    """Count the parameters of the largest channel."""
    channel_groups = _channels.groups(dense)
    sizes = torch.tensor([group.size for group in channel_groups.values()])
    fewer = sizes - torch.eye(len(sizes), dtype=torch.int64)
    return int((counts.parameters(dense) - _channels.parameter_counts(dense, channel_groups, fewer)).max())


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_lowest_scores_go_first_and_of_equal_ones_the_last(data: st.DataObject) -> None:
    """Against a loop that removes one channel at a time."""
    dense = mlp.build(mlp.Config(widths=(6, 5)), (1, 2, 2), 2)
    scores = {
        name: torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=size, max_size=size)), dtype=torch.float64)
        for name, size in (("body.1", 6), ("body.3", 5))
    }
    left = {name: list(range(len(score))) for name, score in scores.items()}
    ratio = data.draw(st.floats(1, _channels.structured_ceiling(dense)))
    total = counts.parameters(dense)

    def size() -> int:
        first, second = len(left["body.1"]), len(left["body.3"])
        return 5 * first + (first + 1) * second + (second + 1) * 2

    sizes = {size(): copy.deepcopy(left)}
    while any(len(channels) > 1 for channels in left.values()):
        # The best of each layer, the first of equals, is never a candidate.
        candidates = [
            (float(scores[name][c]), -index, -c, name)
            for index, (name, channels) in enumerate(left.items())
            for c in channels
            if c != int(scores[name].argmax())
        ]
        *_, channel, name = min(candidates)
        left[name].remove(-channel)
        sizes[size()] = copy.deepcopy(left)
    pruned = _channels.prune_channels_by_scores(dense, ratio, scores, "global")
    count = counts.parameters(pruned)
    assert abs(count - total / ratio) == min(abs(other - total / ratio) for other in sizes)
    for name, kept in sizes[count].items():
        columns = sizes[count]["body.1"] if name == "body.3" else range(4)
        weight = dense.get_submodule(name).weight[kept][:, list(columns)]
        assert torch.equal(weight, pruned.get_submodule(name).weight)


@pytest.mark.parametrize("name", [name for name in PLUGINS if name != "resnet20-projection"])
def test_survives_storing_copying_and_pickling(name: str) -> None:
    dense = build(name)
    small = _channels.keep_channels(dense, some(_channels.groups(dense)))
    entry, shape = PLUGINS[name]
    stored = restore(resolve("backbones", entry), shape, CLASSES, state(small))
    for copied in (stored, copy.deepcopy(small), pickle.loads(pickle.dumps(small))):
        assert torch.equal(copied(images(dense)), small(images(dense)))
        assert sizes(copied) == sizes(small)
    assert_same_outputs(_channels.keep_channels(stored, {}), stored)


def sizes(backbone: Backbone) -> list[str]:
    return [repr(module) for module in backbone.modules() if not any(True for _ in module.children())]


@pytest.mark.parametrize("name", QUICK)
def test_smaller_network_trains(name: str) -> None:
    dense = build(name)
    small = _channels.keep_channels(dense, some(_channels.groups(dense))).train()
    optimizer = torch.optim.SGD(small.parameters(), 1e-3)
    small(images(dense, 4)).square().sum().backward()
    assert all(p.grad is not None and p.is_leaf and p.grad.shape == p.shape for p in small.parameters())
    optimizer.step()


@pytest.mark.parametrize("name", ["resnet8-pad", "mobilenet"])
def test_input_network_is_untouched(name: str) -> None:
    dense = build(name).train()
    next(dense.parameters()).requires_grad_(False)
    before, moved = copy.deepcopy(dense.state_dict()), torch.get_rng_state()
    keep = some(_channels.groups(dense))
    small, masked = _channels.keep_channels(dense, keep), _channels.mask_channels(dense, keep)
    assert small.training
    assert not next(small.parameters()).requires_grad
    for parameter in (*small.parameters(), *masked.parameters()):
        nn.init.zeros_(parameter)
    after = dense.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(parameter.grad is None for parameter in dense.parameters())
    assert torch.equal(moved, torch.get_rng_state())


def test_keeping_everything_is_bit_identical_and_shares_nothing() -> None:
    dense = build("resnet8-pad")
    small = _channels.keep_channels(dense, {})
    assert torch.equal(small(images(dense)), dense(images(dense)))
    assert state(small).keys() == state(dense).keys()
    every = {name: torch.ones(group.size, dtype=torch.bool) for name, group in _channels.groups(dense).items()}
    assert torch.equal(_channels.keep_channels(dense, every)(images(dense)), dense(images(dense)))
    assert not {p.data_ptr() for p in small.parameters()} & {p.data_ptr() for p in dense.parameters()}


def test_streams_of_a_residual_network_are_groups_of_their_own() -> None:
    channel_groups = _channels.groups(build("resnet8-pad"))
    assert [(name, group.size) for name, group in channel_groups.items()] == [
        ("body.0", 6),
        ("body.3.residual.0", 6),
        ("body.4.residual.0", 12),
        ("body.4.residual.3", 12),
        ("body.5.residual.0", 24),
        ("body.5.residual.3", 24),
    ]
    first, last = channel_groups["body.0"], channel_groups["body.5.residual.3"]
    assert first.writers == ("body.0", "body.3.residual.3")
    assert first.entering == ("body.4.shortcut",)
    assert {slot.layer for slot in first.readers} == {"body.3.residual.0", "body.4.residual.0"}
    assert {slot.layer for slot in first.carriers} == {"body.1", "body.3.residual.4"}
    assert last.leaving == ("body.5.shortcut",)
    assert [slot.layer for slot in last.readers] == ["classifier"]


def test_index_tables_follow_flattening_and_concatenation() -> None:
    flat = _channels.groups(build("flattened"))["body.0"]
    assert torch.equal(flat.carriers[0].index, torch.arange(80).view(5, 16))
    assert torch.equal(flat.readers[0].index, torch.arange(80).view(5, 16))
    right = _channels.groups(build("concatenated"))["body.right"]
    assert torch.equal(right.readers[0].index, torch.arange(4, 10)[:, None])


@pytest.mark.parametrize("depth", [8, 20])
@pytest.mark.parametrize("shortcut", ["pad", "projection"])
def test_high_ratios_are_reached(depth: int, shortcut: Literal["pad", "projection"]) -> None:
    dense = resnet_cifar.build(resnet_cifar.Config(depth=depth, width=16, shortcut=shortcut), LARGE, 10)
    assert _channels.structured_ceiling(dense) > 500
    scores = {name: torch.rand(group.size) for name, group in _channels.groups(dense).items()}
    pruned = _channels.prune_channels_by_scores(dense, 32.0, scores, "layer")
    assert counts.parameters(dense) / counts.parameters(pruned) == pytest.approx(32, rel=0.03)
    assert pruned(images(dense)).shape == (2, 10)


def test_channels_last_weights_stay_so() -> None:
    dense = build("resnet8-pad").to(memory_format=torch.channels_last)
    keep = some(_channels.groups(dense))
    small = _channels.keep_channels(dense, keep)
    weight = small.get_submodule("body.4.residual.3").weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert_same_outputs(small, _channels.keep_channels(build("resnet8-pad"), keep))


def test_shortcut_copies_the_channels_that_are_left() -> None:
    shortcut = PadShortcut(3, 7, 2)
    before = shortcut(torch.arange(3.0).add(1).view(1, 3, 1, 1)).flatten()
    assert before.tolist() == [0, 0, 1, 2, 3, 0, 0]
    assert "source" not in shortcut.state_dict()
    inputs, outputs = torch.tensor([True, False, True]), torch.tensor([True, False, True, True, True, False, True])
    shortcut.keep(inputs, outputs)
    assert shortcut(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten().tolist() == [0, 1, 0, 3, 0]
    shortcut.clear(torch.tensor([False, True, False, False, False]))
    assert shortcut(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1)).flatten().tolist() == [0, 0, 0, 3, 0]
    assert shortcut.outputs == 5


class Recurrent(nn.Module):
    """A batch-first LSTM over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.linear = nn.LSTM(24, 6, batch_first=True), nn.Linear(6, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.lstm(images.transpose(1, 2).flatten(2))[0][:, -1]).relu()


class Attending(nn.Module):
    """Attention over the pixels of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.attention = nn.Conv2d(3, 8, 3), nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = self.conv(images).flatten(2).transpose(1, 2)
        return self.attention(pixels, pixels, pixels)[0].mean(1)


class Shuffled(nn.Module):
    """Channels change places between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mixed = self.first(images).relu().unflatten(1, (2, 4)).transpose(1, 2).flatten(1, 2)
        return self.second(mixed).relu().mean((2, 3))


REFUSED: dict[str, tuple[Callable[[], Backbone], str]] = {
    "attention": (
        lambda: Backbone(Attending(), nn.Linear(8, CLASSES), SMALL),
        "got none: the output of body.conv passes a MultiheadAttention at body.attention; .*magnitude",
    ),
    "layer norm": (
        lambda: sequential(nn.Flatten(), nn.Linear(192, 8), nn.LayerNorm(8), width=8),
        "got none: the output of body.1 passes a LayerNorm at body.2; ",
    ),
    "sigmoid": (
        lambda: sequential(nn.Flatten(), nn.Linear(192, 8), nn.Sigmoid(), nn.Linear(8, 4), nn.ReLU(), width=4),
        "got other outputs without those of body.1: ",
    ),
    "softmax": (
        lambda: sequential(nn.Flatten(), nn.Linear(192, 8), nn.Softmax(1), nn.Linear(8, 4), nn.ReLU(), width=4),
        "got other outputs without those of body.1: ",
    ),
    "shuffle": (lambda: Backbone(Shuffled(), nn.Linear(4, CLASSES), SMALL), "prune single weights of this network"),
    "groups alone": (
        lambda: sequential(nn.Conv2d(3, 6, 3, groups=3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), width=6),
        "the output of body.0 passes a convolution with 3 groups at body.0",
    ),
    "no layers": (
        lambda: sequential(nn.Flatten(), width=192),
        "got a body without a linear layer or convolution; add a layer",
    ),
    "masks": (
        lambda: _methods.prune(magnitude, build("mlp"), 2.0, magnitude.Config(), Context(torch.Generator())),
        "got masked layers; start from the dense one",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_networks_are_refused_with_the_reason(name: str) -> None:
    build_it, message = REFUSED[name]
    with pytest.raises(CompressionError, match=message):
        _channels.groups(build_it())


@pytest.mark.parametrize(
    ("name", "units", "norm"),
    [
        ("transformer", {"body.blocks.0.mlp.0": 12, "body.blocks.1.mlp.0": 10}, "body.blocks.0.ln_1"),
        ("windows", {"body.blocks.0.mlp.0": 32, "body.blocks.1.mlp.0": 32}, "body.blocks.0.norm1"),
        ("next block", {"body.1.block.3": 32}, "body.1.block.2"),
    ],
)
def test_units_of_perceptrons_go_and_what_passes_a_layer_norm_stays(
    name: str, units: dict[str, int], norm: str
) -> None:
    channel_groups, stay = _groups.trace(build(name))
    assert {group.name: group.size for group in channel_groups.values()} == units
    assert f"passes a LayerNorm at {norm}" in stay.values()


def test_butterflies_leave_layers_alone_whose_weights_others_read() -> None:
    dense = build("windows")
    pruned = _methods.prune(butterfly, dense, 1.2, butterfly.Config(), Context(rng.generator(0)))
    replaced = [name for name, module in pruned.named_modules() if isinstance(module, ButterflyLinear)]
    assert replaced
    assert all(".mlp." in name for name in replaced)
    assert torch.isfinite(pruned(images(pruned))).all()


def test_units_behind_an_lstm_go_and_its_own_stay() -> None:
    with rng.seeded(0):
        dense = Backbone(Recurrent(), nn.Linear(5, CLASSES), SMALL).eval()
    channel_groups = _channels.groups(dense)
    assert list(channel_groups) == ["body.linear"]
    assert_same_outputs(
        _channels.keep_channels(dense, some(channel_groups)), _channels.mask_channels(dense, some(channel_groups))
    )


@pytest.mark.parametrize("scale", ["norm", "parameter"])
def test_channels_that_pass_a_parameter_outside_of_layers_stay(scale: str) -> None:
    """What scales channels has one entry for each: without it the sizes would not fit."""

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(192, 6), nn.Linear(6, 5)
            self.scale = nn.GroupNorm(1, 6) if scale == "norm" else nn.Parameter(torch.rand(6))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            hidden = self.first(images.flatten(1))
            hidden = self.scale(hidden) if isinstance(self.scale, nn.Module) else hidden * self.scale
            return self.second(hidden.relu()).relu()

    channel_groups, stay = _groups.trace(Backbone(Scaled(), nn.Linear(5, CLASSES), SMALL))
    assert list(channel_groups) == ["body.second"]
    assert stay == {"body.first": f"passes {'a GroupNorm at' if scale == 'norm' else 'the parameter'} body.scale"}


def test_what_the_library_trips_over_is_not_shown() -> None:
    """ShuffleNet makes it divide by zero."""
    with rng.seeded(0):
        config = torchvision_model.Config(architecture="shufflenet_v2_x0_5", stem="keep")
        backbone = torchvision_model.build(config, (3, 32, 32), CLASSES)
    with pytest.raises(
        CompressionError, match="got one that torch-pruning cannot follow, such as one that shuff"
    ) as told:
        _channels.groups(backbone)
    assert "Error" not in str(told.value)


def test_layers_have_their_article() -> None:
    assert [_groups._describe(layer) for layer in (nn.InstanceNorm2d(2), nn.PReLU())] == [
        "an InstanceNorm2d",
        "a PReLU",
    ]


def test_channels_of_grouped_convolutions_stay_and_the_ceiling_says_so() -> None:
    dense = build("grouped")
    assert list(_channels.groups(dense)) == ["body.5"]
    ceiling = _channels.structured_ceiling(dense)
    with pytest.raises(
        CompressionError, match=r"where the output of body.0 passes a convolution with 2 groups at body.2"
    ):
        _channels.prune_channels_by_scores(dense, ceiling * 1.01, {"body.5": torch.rand(10)}, "layer")


def test_a_layer_that_would_vanish_is_named() -> None:
    dense = build("mlp")
    none = {"body.3": torch.zeros(7, dtype=torch.bool)}
    for function in (_channels.keep_channels, _channels.mask_channels):
        with pytest.raises(CompressionError, match=r"at least one channel of body.3 to stay, got none of 7"):
            function(dense, none)


def test_scores_that_are_not_finite_are_refused() -> None:
    scores = {"body.1": torch.ones(12), "body.3": torch.full((7,), torch.inf)}
    with pytest.raises(CompressionError, match=r"got 7 NaN or infinite of 7 in layer 'body.3'"):
        _channels.prune_channels_by_scores(build("mlp"), 2.0, scores, "global")
