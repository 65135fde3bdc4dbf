"""Any torchvision classifier, its stem adapted to small images and its last layer to the classes.

backbones: [{name: torchvision_model, architecture: resnet18, weights: DEFAULT}]
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torchvision
from torch import nn

from sharedlabel.backbones._base import Backbone, Normalization
from sharedlabel.config.fields import added
from sharedlabel.errors import ConfigError, DataError, nearest

_SMALL_SIDE = 64

# The others need no options to be built without a warning or an extra output.
_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "init_weights": True},
    "inception_v3": {"aux_logits": False, "init_weights": True},
}


@dataclass(frozen=True)
class Config:
    """Options of a torchvision classifier.

    Args:
        architecture: name of the model in torchvision, such as resnet18 or mobilenet_v3_small.
        weights: name of pretrained weights, such as DEFAULT or IMAGENET1K_V1; null: random.
        stem: `small` turns a strided first convolution into a new 3x3 convolution of stride 1 and drops a max pooling
            that directly follows it; `keep` leaves both; `auto` is small when the image's shorter side is at most 64
            pixels. For other than 3 channels the first convolution is rebuilt; pretrained weights are averaged over
            channels and scaled so that a grey image gets the same response.
        head: `kept` makes the last linear layer the classifier, which no pruner touches; `prunable` leaves it in the
            body and puts the identity behind it as classifier, so that it is pruned like every other layer, as in some
            published tables; embeddings are then logits.
        normalize: images by mean and deviation of each `channel` over the backbone split, or each `image` by its own.
    """

    architecture: str = "resnet18"
    weights: str | None = None
    stem: Literal["auto", "keep", "small"] = "auto"
    head: Literal["kept", "prunable"] = "kept"
    normalize: Normalization = added("channel")


def build(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Backbone:
    """Build the network: the model up to its last linear layer is the body, a new layer the classifier.

    Args:
        config: options.
        image_shape: channels, height and width of an image.
        num_classes: number of classes.

    Raises:
        ConfigError: no such architecture or weights, or one that cannot take these images.
        DataError: the pretrained weights cannot be had.
    """
    channels, *sides = image_shape
    model = _model(config)
    linear = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise ConfigError(
            f"expected a torchvision model that ends in a linear layer, got {config.architecture!r}, which has none; "
            "choose another architecture, such as resnet18"
        )
    name, last = linear[-1]
    model.set_submodule(name, nn.Identity())
    small = config.stem == "small" or (config.stem == "auto" and min(sides) <= _SMALL_SIDE)
    _adapt_stem(model, channels, small, config.weights is not None)
    classifier = nn.Linear(last.in_features, num_classes)
    if config.head == "prunable":
        model.set_submodule(name, classifier)
        classifier = _identity(num_classes)
    _try(model, image_shape, classifier.in_features, config.architecture)
    return Backbone(model, classifier, image_shape, config.normalize)


def skeleton(config: Config, image_shape: tuple[int, int, int], num_classes: int) -> Backbone:
    """Build the network without its pretrained weights, to load a stored state into it."""
    return build(replace(config, weights=None), image_shape, num_classes)


def _identity(width: int) -> nn.Linear:
    """Return a linear layer that starts as the identity."""
    layer = nn.Linear(width, width)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _model(config: Config) -> nn.Module:
    """Build the model as torchvision has it, without auxiliary outputs."""
    names = torchvision.models.list_models(module=torchvision.models)
    if config.architecture not in names:
        raise ConfigError(
            f"unknown torchvision classifier {config.architecture!r}; {nearest(config.architecture, names)}"
        )
    if config.weights is not None:
        return _pretrained(config.architecture, config.weights)
    model: nn.Module = torchvision.models.get_model(config.architecture, **_OPTIONS.get(config.architecture, {}))
    return model


def _pretrained(architecture: str, name: str) -> nn.Module:
    """Build a model with its pretrained weights, downloaded once by torchvision."""
    known = torchvision.models.get_model_weights(architecture)
    if name not in known.__members__:
        raise ConfigError(f"unknown weights {name!r} of {architecture}; {nearest(name, known.__members__)}")
    weights = known[name]
    try:
        # torchvision would unpickle whatever lies in its cache; tensors are all that may lie there.
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        model: Any = torchvision.models.get_model(architecture, weights=weights)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise DataError(
            f"expected the pretrained weights {name} of {architecture}, got: {error}; if this machine is offline or "
            f"the file is damaged, put {weights.url} into {folder} by hand, or set weights to null"
        ) from error
    # GoogLeNet drops its auxiliary classifiers by default, Inception keeps them and then returns two outputs.
    if isinstance(model, torchvision.models.Inception3):
        model.aux_logits, model.AuxLogits = False, None
    return cast("nn.Module", model)


def _adapt_stem(model: nn.Module, channels: int, small: bool, pretrained: bool) -> None:
    """Fit the first convolution, and a pooling right after it, to the images, in place."""
    leaves = [(name, module) for name, module in model.named_modules() if not any(True for _ in module.children())]
    first = next(index for index, (_, module) in enumerate(leaves) if isinstance(module, nn.Conv2d))
    name, conv = leaves[first]
    assert isinstance(conv, nn.Conv2d)
    if small and max(conv.stride) > 1:
        new = nn.Conv2d(channels, conv.out_channels, 3, padding=1, bias=conv.bias is not None)
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        model.set_submodule(name, new)
        for after, module in leaves[first + 1 :]:
            if isinstance(module, nn.MaxPool2d):
                model.set_submodule(after, nn.Identity())
            if isinstance(module, (nn.Conv2d, nn.Linear, nn.MaxPool2d)):
                break
    elif channels != conv.in_channels:
        model.set_submodule(name, _with_channels(conv, channels, pretrained))
    if channels != 3 and isinstance(model, (torchvision.models.GoogLeNet, torchvision.models.Inception3)):
        model.transform_input = False  # re-scales ImageNet's three channels


def _with_channels(conv: nn.Conv2d, channels: int, pretrained: bool) -> nn.Conv2d:
    """Rebuild a convolution for another number of channels."""
    has_bias = conv.bias is not None
    new = nn.Conv2d(channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=has_bias)  # type: ignore[arg-type]
    if not pretrained:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
        return new
    with torch.no_grad():
        new.weight.copy_(conv.weight.sum(1, keepdim=True) / channels)
        if new.bias is not None and conv.bias is not None:
            new.bias.copy_(conv.bias)
    return new


def _try(model: nn.Module, image_shape: tuple[int, int, int], width: int, architecture: str) -> None:
    """Run the body on the meta device, where nothing is computed, to see that it takes the images."""
    copied = copy.deepcopy(model).to("meta").eval()
    try:
        embedding = copied(torch.empty(1, *image_shape, device="meta"))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        size = " x ".join(map(str, image_shape))
        raise ConfigError(
            f"expected an architecture that takes images of {size} (channels, height, width), got {architecture!r}: "
            f"{error}; resize the images, set stem to keep, or choose another architecture, such as resnet18"
        ) from error
    if not isinstance(embedding, torch.Tensor) or tuple(embedding.shape) != (1, width):
        raise ConfigError(
            f"expected a torchvision model that ends in a linear layer, got {architecture!r}, whose last linear layer "
            "is not its output; choose another architecture, such as resnet18"
        )
