"""The layers of torchvision's SqueezeNet, from the first fire module on, for small images.

Reference: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters" (2016).
"""

from dataclasses import dataclass

from torch import nn
from torchvision.models.squeezenet import Fire

from sharedlabel.backbones import Backbone, initialize


@dataclass(frozen=True)
class Config:
    """Options.

    Args:
        width: channels of the first convolution; the fire modules have as many and twice as many.
    """

    width: int = 16


def build(config, image_shape, num_classes):
    """Build a network that an image of 8 x 8 pixels or more fits into."""
    width = config.width
    body = nn.Sequential(
        nn.Conv2d(image_shape[0], width, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        Fire(width, width // 2, width // 2, width // 2),
        Fire(width, width // 2, width, width),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    backbone = Backbone(body, nn.Linear(2 * width, num_classes), image_shape)
    initialize(backbone)
    return backbone
