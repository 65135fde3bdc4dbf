"""Rebuild a backbone from its configuration and a stored state, also when pruning changed layer sizes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from sharedlabel.backbones import _butterfly
from sharedlabel.backbones._base import Backbone
from sharedlabel.backbones._masking import MASK
from sharedlabel.config import Plugin
from sharedlabel.plugins import load


def state(backbone: Backbone) -> dict[str, Tensor]:
    """Return the tensors to store: parameters and buffers, masks as `bool`."""
    return {
        name: (tensor.bool() if name.endswith(MASK) else tensor).detach().cpu()
        for name, tensor in backbone.state_dict().items()
    }


def restore(
    plugin: Plugin, image_shape: tuple[int, int, int], num_classes: int, tensors: Mapping[str, Tensor]
) -> Backbone:
    """Build the backbone and load a stored state into it, taking layer sizes and masks from the state.

    Args:
        plugin: the backbone.
        image_shape: channels, height, width.
        num_classes: number of labels.
        tensors: what `state` returned.
    """
    module = load("backbones", plugin.name)
    # Initial values are overwritten: the caller's random stream must not move, and nothing need be downloaded.
    with torch.random.fork_rng(devices=[]):
        backbone: Backbone = getattr(module, "skeleton", module.build)(plugin.config, image_shape, num_classes)
        _butterfly.rebuild(backbone, tensors)
    for name, layer in backbone.named_modules():
        _resize(layer, name, tensors)
    backbone.has_masks = any(name.endswith(MASK) for name in tensors)
    backbone.load_state_dict(
        {name: tensor.float() if name.endswith(MASK) else tensor for name, tensor in tensors.items()}
    )
    return backbone.eval()


def _resize(module: nn.Module, name: str, tensors: Mapping[str, Tensor]) -> None:
    """Give a module's parameters, buffers and size attributes the shapes found in the state."""
    prefix = f"{name}." if name else ""
    for key, parameter in list(module.named_parameters(recurse=False)):
        stored = tensors[prefix + key]
        if stored.shape != parameter.shape:
            setattr(module, key, nn.Parameter(torch.empty_like(stored)))
    for key, buffer in list(module.named_buffers(recurse=False)):
        if key in module._non_persistent_buffers_set:
            continue
        stored = tensors[prefix + key]
        if stored.shape != buffer.shape:
            setattr(module, key, torch.empty_like(stored))
    for key, absent in list(module._buffers.items()):
        if absent is None and prefix + key in tensors:
            setattr(module, key, torch.empty_like(tensors[prefix + key]))
    for key in [key for key in module._parameters if f"{prefix}{key}_mask" in tensors]:
        module.register_buffer(f"{key}_mask", torch.ones_like(tensors[f"{prefix}{key}_mask"], dtype=torch.float32))
    update_sizes(module)


def update_sizes(module: nn.Module) -> None:
    """Give a module's size attributes the values that its tensors have, in place."""
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _ConvNd) and is_depthwise(module):
        module.in_channels = module.out_channels = module.groups = module.weight.shape[0]
    elif isinstance(module, _ConvNd) and module.groups == 1 and not module.transposed:
        module.out_channels, module.in_channels = module.weight.shape[:2]
    elif isinstance(module, _BatchNorm):
        sized = module.weight if module.weight is not None else module.running_mean
        module.num_features = module.num_features if sized is None else sized.numel()


def is_depthwise(module: nn.Module) -> bool:
    """Tell whether a module is a convolution that acts on each of several channels alone."""
    return isinstance(module, _ConvNd) and 1 < module.groups == module.in_channels == module.out_channels
