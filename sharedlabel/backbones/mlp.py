"""A multilayer perceptron with ReLU units.

backbones: [{name: mlp, widths: [300, 100]}]
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field
from torch import nn

from sharedlabel.backbones._base import Backbone, Normalization, initialize
from sharedlabel.config.fields import added
from sharedlabel.config.schema import Width


@dataclass(frozen=True)
class Config:
    """Options of the multilayer perceptron.

    Args:
        widths: units of each hidden layer, input side first; the last is the width of the embedding. Empty: the
            embedding is the flattened image and the network is a linear classifier.
        bias: whether the linear layers have biases.
        normalize: images by mean and deviation of each `channel` over the backbone split, or each `image` by its own.
    """

    widths: Annotated[tuple[Width, ...], Field(max_length=100)] = (256, 128)
    bias: bool = True
    normalize: Normalization = added("channel")


def build(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Backbone:
    """Build the network.

    Args:
        config: options.
        image_shape: channels, height and width of an image.
        num_classes: number of classes.
    """
    sizes = (math.prod(image_shape), *config.widths)
    body = nn.Sequential(nn.Flatten())
    for inputs, outputs in itertools.pairwise(sizes):
        body.extend([nn.Linear(inputs, outputs, bias=config.bias), nn.ReLU()])
    backbone = Backbone(body, nn.Linear(sizes[-1], num_classes, bias=config.bias), image_shape, config.normalize)
    initialize(backbone)
    return backbone
