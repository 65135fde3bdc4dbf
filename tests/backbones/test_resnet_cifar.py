from __future__ import annotations

import pytest
import torch
from torch import nn

from sharedlabel.backbones import resnet_cifar
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.backbones.resnet_cifar import Config
from sharedlabel.config import resolve
from sharedlabel.errors import ConfigError
from sharedlabel.measurements import counts

CIFAR = (3, 32, 32)


@pytest.mark.parametrize(("depth", "parameters"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_published_parameter_counts(depth: int, parameters: int) -> None:
    """He et al., table 6: 0.27M, 0.85M, 1.7M; the exact numbers are those of public implementations of option A."""
    assert counts.parameters(resnet_cifar.build(Config(depth=depth), CIFAR, 10)) == parameters


def test_depth_counts_the_layers_with_weights() -> None:
    backbone = resnet_cifar.build(Config(depth=14), CIFAR, 10)
    assert sum(isinstance(module, (nn.Conv2d, nn.Linear)) for module in backbone.modules()) == 14


def test_projection_adds_two_pointwise_convolutions() -> None:
    padded = resnet_cifar.build(Config(depth=8), CIFAR, 10)
    projected = resnet_cifar.build(Config(depth=8, shortcut="projection"), CIFAR, 10)
    extra = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert counts.parameters(projected) - counts.parameters(padded) == extra


def test_pad_shortcut_subsamples_and_adds_zero_channels() -> None:
    images = torch.rand(2, 3, 5, 4)
    output = PadShortcut(3, 6, 2)(images)
    assert output.shape == (2, 6, 3, 2)
    assert torch.equal(output[:, 1:4], images[:, :, ::2, ::2])
    assert not output[:, [0, 4, 5]].any()


@pytest.mark.parametrize("shortcut", ["pad", "projection"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 13), (2, 28, 28)])
def test_any_size_from_eight_pixels(shape: tuple[int, int, int], shortcut: str) -> None:
    backbone = resnet_cifar.build(Config(depth=8, width=3, shortcut=shortcut), shape, 4).eval()
    assert backbone.embed(torch.rand(2, *shape)).shape == (2, 12)


@pytest.mark.parametrize(("depth", "nearest"), [(18, 20), (2, 8), (0, 8), (57, 56)])
def test_depth_that_is_no_resnet_is_refused(depth: int, nearest: int) -> None:
    with pytest.raises(ConfigError, match=rf"got {depth}; the nearest is {nearest}"):
        resnet_cifar.build(Config(depth=depth), CIFAR, 10)


def test_width_below_one_is_refused() -> None:
    with pytest.raises(ConfigError, match="width: expected a whole number from 1 to 65536, got 0; the default is 16"):
        resolve("backbones", {"name": "resnet_cifar", "width": 0})


def test_tiny_images_are_refused() -> None:
    with pytest.raises(ConfigError, match="got 8 x 7"):
        resnet_cifar.build(Config(), (1, 8, 7), 10)
