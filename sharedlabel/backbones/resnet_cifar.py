"""A residual network for small images.

    backbones: [{name: resnet_cifar, depth: 8, width: 32}]

Reference: He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition" (2016), section 4.2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from sharedlabel.backbones._base import Backbone, Normalization, initialize
from sharedlabel.backbones._shortcut import PadShortcut
from sharedlabel.config.fields import added
from sharedlabel.config.schema import Width
from sharedlabel.errors import ConfigError

_SMALLEST_SIDE = 8


@dataclass(frozen=True)
class Config:
    """Options of the residual network.

    Args:
        depth: layers with weights, 6m + 2 for m blocks in each of the three stages: 8, 14, 20, 32, 44, 56, 110, ...
        width: channels of the first stage; the stages have width, 2 width and 4 width, the last is the embedding.
        shortcut: where the shape changes, `pad` subsamples and pads with zero channels (no parameters; option A of
            the paper, and its CIFAR networks), `projection` is a strided 1x1 convolution (option B).
        normalize: images by mean and deviation of each `channel` over the backbone split, or each `image` by its own.
    """

    depth: Annotated[int, Field(le=2_000)] = 20
    width: Width = 16
    shortcut: Literal["pad", "projection"] = "pad"
    normalize: Normalization = added("channel")


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut.

    Args:
        inputs: input channels.
        outputs: output channels.
        stride: stride of the first convolution, pixels.
        shortcut: how the shape is changed where it changes.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: Literal["pad", "projection"]) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.activation = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = (
                PadShortcut(inputs, outputs, stride)
                if shortcut == "pad"
                else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            )

    def forward(self, images: Float[Tensor, "b C H W"]) -> Float[Tensor, "b C2 H2 W2"]:
        """Apply the block."""
        activated: Tensor = self.activation(self.residual(images) + self.shortcut(images))
        return activated


def build(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Backbone:
    """Build the network, with the paper's initialisation.

    Args:
        config: options.
        image_shape: channels, height and width of an image; at least 8 pixels a side.
        num_classes: number of classes.

    Raises:
        ConfigError: a depth that is not 6m + 2, or images that are too small.
    """
    channels, height, width = image_shape
    blocks, rest = divmod(config.depth - 2, 6)
    if rest or blocks < 1:
        nearest = 6 * max(1, round((config.depth - 2) / 6)) + 2
        raise ConfigError(f"expected depth = 6m + 2 (8, 14, 20, ...), got {config.depth}; the nearest is {nearest}")
    if min(height, width) < _SMALLEST_SIDE:
        raise ConfigError(
            f"expected images of at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels, got {height} x {width}; "
            "enlarge them or choose a backbone without convolutions"
        )
    body = nn.Sequential(
        nn.Conv2d(channels, config.width, 3, padding=1, bias=False), nn.BatchNorm2d(config.width), nn.ReLU()
    )
    inputs = config.width
    for stage in range(3):
        outputs = config.width * 2**stage
        for block in range(blocks):
            body.append(Block(inputs, outputs, 2 if stage and not block else 1, config.shortcut))
            inputs = outputs
    body.extend([nn.AdaptiveAvgPool2d(1), nn.Flatten()])
    backbone = Backbone(body, nn.Linear(inputs, num_classes), image_shape, config.normalize)
    initialize(backbone)
    return backbone
